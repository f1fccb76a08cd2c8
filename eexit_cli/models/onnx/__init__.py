"""Early exit inside ONNX Runtime: one file whose layers are nested ``If`` branches.

``export`` makes one flat graph of a classifier and its exit criterion, ``quantise`` its int8 twin,
``nesting`` puts each layer into the else-branch of the exit before it and takes it apart again,
``about`` is what the file says of itself, ``deployment`` writes the folder, and ``sessions`` runs a
file for evaluation, calibration and attacks. Both packages come with ``eexit[onnx]``.
"""
