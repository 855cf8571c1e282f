"""Saliency methods: what each asks the engine for, its formula, parameters and paper."""
