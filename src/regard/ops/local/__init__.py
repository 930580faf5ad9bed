"""Local attention: each pixel looks at a window around it (SASA, Ramachandran et al. 2019, section 3).

attention.py       `local_attention`: the definition, the table of implementations, the choice of the fastest
arguments.py       the arguments that all implementations share, and their checks
windows.py         which pixels a window holds: the only file that knows borders and dilation
blocked.py         blocks of queries with the keys around them, in plain PyTorch: the fastest without a compiler
native.py          C++ for CPUs (ops/native), as an op of PyTorch
flex.py            FlexAttention, for CUDA
natten.py          the package NATTEN, for CUDA and windows that are moved inside the image
merge_softmax.py   the prefix tokens of the C++ path: two softmaxes as one
dense_weights.py   the weights of all pairs of tokens, to explain and to compile
rows.py            the windows of some pixels, to explain
stem.py            the attention of a network's first layer, whose values depend on their place in the window
"""
