"""From a clip to a file the model can read: access, decoding, and the folder where such files live briefly."""
