"""One external job per module, all of one shape: stage(spec, **deps) -> Stage, and the paths it leaves behind."""
