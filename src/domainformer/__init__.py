"""domainformer: turn tables of events into small Transformers worth having."""
