"""Models in the formats of other runtimes, each checked against PyTorch before it is trusted.

May import ``models``, ``tokenizers``, ``inference``, ``registry`` and what lies below; never
``training`` or ``evaluation``.
"""
