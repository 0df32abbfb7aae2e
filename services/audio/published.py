"""The rate and hop of the published descriptors, which hold where nothing else is said."""

PUBLISHED_SAMPLE_RATE_HERTZ = 44_100
PUBLISHED_HOP_LENGTH_SAMPLES = 1024
