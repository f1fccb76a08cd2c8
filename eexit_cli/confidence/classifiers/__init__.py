"""Confidence classifiers: small networks on the decoder's final-normed state; DL2-CALM's six.

Each maps states [batch, tokens, d_model] to logits [batch, tokens, 2]; output 1 means that the
layer's token agrees with the last layer's, so the confidence is its softmax probability. One
network serves all layers. Parameter names are those of DL2-CALM's ``cm_head``.
"""
