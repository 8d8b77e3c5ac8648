"""Two-dimensional image encoders under one interface, with the names public checkpoints give their weights."""

from __future__ import annotations

from edgehem.export.models.backbones.registry import BACKBONES, Description, backbone

__all__ = ["BACKBONES", "Description", "backbone"]
