"""Videos in, uint8 batches out: manifests, decoding, sampling, augmentation, frame cache,
loader.
"""
