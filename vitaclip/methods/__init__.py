"""Ways of adapting CLIP to video, a file each.

A new method is a file here, in which ``build`` is the model's class or a function that makes one,
and the file's name in :data:`vitaclip.config.methods.MethodName`.
"""
