"""Tables and figures from result folders; needs no model and no GPU."""
