"""The methods that DPN is compared with, one file each: configuration and module (docs/rivals.md)."""
