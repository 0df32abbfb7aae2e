"""Calls what the descriptor service calls of librosa, so that numba keeps it compiled."""

import librosa
import numpy as np

librosa.filters.mel(sr=44_100, n_fft=2048)
decibels = librosa.power_to_db(np.ones((128, 32), np.float32))
librosa.feature.delta(librosa.feature.mfcc(S=decibels))
