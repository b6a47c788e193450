"""How long the decoder takes, beside how long its FLOPs say it should: `python -m llava.bench`."""
