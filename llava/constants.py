"""The fixed numbers and tokens of the LLaVA format."""

IGNORE_INDEX = -100
"""Label of a token the language loss leaves out."""
IMAGE_TOKEN_INDEX = -200
"""Id that marks the place of an image among the token ids."""
DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
IMAGE_PLACEHOLDER = "<image-placeholder>"
LOGDIR = "."
"""Upstream's web demo logs here; kept, like the next two, for code that imports it."""
CONTROLLER_HEART_BEAT_EXPIRATION = 30
"""Seconds."""
WORKER_HEART_BEAT_INTERVAL = 15
"""Seconds."""
