"""How simulated events come about: draws, timelines, and one file for each domain.

::

    Draws (a hash) ─▶ Timeline: who, when, routine or motif ─▶ finance | ecommerce | health columns

Start at ``timeline.py``. The public door is ``domainformer.data.simulate``. A new domain is one
file here with a ``RHYTHM`` and a ``columns`` function, and one entry in ``simulate.DOMAINS``.
May import ``errors`` and nothing else of domainformer.
"""
