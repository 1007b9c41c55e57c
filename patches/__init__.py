"""The patches, one module each: ``PATCH`` in ``glm4_residual.py`` is the patch ``glm4-residual``."""

OWNER = "glmpatch"
