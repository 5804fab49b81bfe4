"""Fused attention, where it happens, and the probe that looks at it. torch only; knows no volumes and no models."""
