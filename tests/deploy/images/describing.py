"""Describes half a minute of noise and prints the digest: run here and in an image, to compare."""

import hashlib

import numpy as np

from services.descriptor import mfcc

noise = np.random.default_rng(5).standard_normal(30 * 44_100).astype(np.float32) * 0.1
values, _ = mfcc.extract(noise, mfcc.ExtractionSettings())
digest = hashlib.sha256(values.tobytes()).hexdigest()
print(digest)  # noqa: T201
