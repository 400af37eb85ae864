"""Limits of a start request; times in seconds.

Kept apart from `requests`, whose validation library takes a while to import.
"""

MIN_TIMEOUT_S = 1
MAX_TIMEOUT_S = 600
DEFAULT_TIMEOUT_S = 60
MIN_GRACE_S = 1
MAX_GRACE_S = 300
DEFAULT_GRACE_S = 10.0
MAX_LABELS = 64
MAX_METADATA = 64
MAX_CALLBACK_URLS = 16
#: Maximum characters of one URL; most servers take no longer ones.
MAX_CALLBACK_URL = 8192
MAX_BODY_BYTES = 16 * 1024 * 1024
#: Maximum bytes of one upload to the storage.
MAX_UPLOAD_BYTES = 5 * 2**30
#: Minimum length of a secret that is masked in outputs: a shorter one may be any word or number.
MIN_MASKED_CHARACTERS = 6

#: The metadata key of a client's tag. By the tag the client finds a run whose start was answered,
#: but whose answer was lost.
TAG_KEY = "lyceum_magic_tag"
#: Number of the tag's first characters that are the run's mark, which its frames carry.
MARK_CHARACTERS = 12
