"""The patches, one module each: ``glm4_residual.py`` holds the patch ``glm4-residual``."""
