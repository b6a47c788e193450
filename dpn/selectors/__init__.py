"""The methods that leave visual tokens out in front of the projector, one file each (docs/rivals.md)."""
