"""Ways of adapting CLIP to video, a file each.

A new method is a file here with a function ``build``, and the file's name in
:data:`vitaclip.config.methods.MethodName`.
"""
