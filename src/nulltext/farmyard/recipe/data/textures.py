"""Pictures with the statistics of photographs, so that a photograph survives the farmyard's VAE too.

Drawn scenes have flat colours and clean edges; photographs have occlusion at every scale and a power
spectrum that falls as 1/f^2. Dead leaves (Lee, Mumford, Huang, "Occlusion models for natural images", 2001)
give the first, random-phase noise the second.
"""

import numpy as np
from numpy.typing import NDArray


def fractal(rng: np.random.Generator, size: int, slope: float) -> NDArray[np.float32]:
    """Random-phase noise whose amplitude spectrum falls as 1/f^slope.

    Args:
        rng: Source of randomness.
        size: Side in pixels.
        slope: Exponent of the amplitude spectrum; natural images lie near 1.

    Returns:
        (size, size), zero mean, unit deviation.
    """
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    radius = np.maximum(np.hypot(fy, fx), 1 / size)
    white = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
    noise = np.fft.irfft2(white / radius**slope, s=(size, size))
    return ((noise - noise.mean()) / (noise.std() + 1e-8)).astype(np.float32)


def colour_field(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Fractal colours: a strong common (luminance) part and weak, smoother chroma, as in photographs.

    Returns:
        (size, size, 3), zero mean.
    """
    luminance = fractal(rng, size, rng.uniform(0.8, 1.8))
    chroma = np.stack([fractal(rng, size, rng.uniform(1.2, 2.0)) for _ in range(3)], axis=-1)
    return luminance[..., None] + rng.uniform(0.1, 0.5) * chroma


def gradient(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A linear blend between two random colours in a random direction, (size, size, 3) in [0, 1]."""
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + rng.uniform(0.4, 1.2) * (np.cos(angle) * x + np.sin(angle) * y), 0, 1)[..., None]
    first, second = rng.uniform(size=(2, 3))
    return (share * first + (1 - share) * second).astype(np.float32)


def dead_leaves(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Textured discs and boxes that occlude one another, radii distributed as r^-3, (size, size, 3) in [0, 1]."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    picture = gradient(rng, size)
    texture = colour_field(rng, size)
    base = rng.uniform(0.1, 0.9, size=3)
    for _ in range(int(rng.integers(20, 110))):
        radius = 2.0 / np.sqrt(rng.uniform(0.004, 1.0))
        cx, cy = rng.uniform(0, size, size=2)
        if rng.random() < 0.6:
            coverage = np.clip(radius - np.hypot(x - cx, y - cy) + 0.5, 0, 1)
        else:
            ratio, angle = rng.uniform(0.3, 1.5), rng.uniform(0, np.pi)
            u = np.abs(np.cos(angle) * (x - cx) + np.sin(angle) * (y - cy))
            v = np.abs(np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx))
            coverage = np.clip(radius - u + 0.5, 0, 1) * np.clip(ratio * radius - v + 0.5, 0, 1)
        colour = 0.45 * base + 0.55 * rng.uniform(size=3) + rng.uniform(0, 0.15) * texture
        picture += coverage[..., None].astype(np.float32) * (colour.astype(np.float32) - picture)
    return picture


def photo_like(seed: int, size: int = 128) -> NDArray[np.uint8]:
    """One synthetic picture with the statistics of a photograph.

    Args:
        seed: The same seed gives the same picture.
        size: Side in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    rng = np.random.default_rng([seed, 0x7E87])
    kind = rng.random()
    if kind < 0.55:
        picture = dead_leaves(rng, size)
    elif kind < 0.9:
        picture = gradient(rng, size) + rng.uniform(0.05, 0.3) * colour_field(rng, size)
    else:
        picture = gradient(rng, size)
    if rng.random() < 0.5:
        picture = picture + rng.uniform(0.01, 0.08) * fractal(rng, size, 0.5)[..., None]
    grey = picture.mean(axis=-1, keepdims=True)
    picture = grey + rng.uniform(0.1, 1.0) * (picture - grey)
    picture = (picture - 0.5) * rng.uniform(0.7, 1.3) + rng.uniform(0.4, 0.6)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
