"""Draw the sample pictures: sixteen procedural scenes in which nobody else has rights, to try the classifier on.

They are drawings, not photographs: fractal noise, a height-map renderer for landscapes and a small ray tracer for
everything built of boxes. Ten show one scene each and are named after it; the two ``doubtful_*`` pictures are
between two scenes on purpose, so that the answer should be in doubt; ``both_*`` shows two scenes side by side; the
three ``phone_*`` pictures are scenes as a telephone would store them. Needs numpy and Pillow only. The seeds are
fixed: a second run writes the same bytes.

    python data/samples/make_samples.py [FOLDER]

FOLDER defaults to the folder of this file.
"""

import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 480, 360
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)

Vector = tuple[float, float, float]
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]  # points (3, M), axis of the face (M,) -> colour factor


# --- Primitives: canvases are float arrays (H, W, 3) in 0..1, masks (H, W) in 0..1 ---------------------------------


def f32(values: ArrayLike) -> np.ndarray:
    """Return values as a float32 array."""
    return np.asarray(values, np.float32)


def fractal(
    rng: np.random.Generator,
    size: float,
    beta: float = 1.7,
    stretch: tuple[float, float] = (1.0, 1.0),
    shape: tuple[int, int] = (HEIGHT, WIDTH),
) -> np.ndarray:
    """Return periodic 1/f^beta noise around 0.5; ``size`` is its largest feature in pixels."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None] * stretch[1], np.fft.rfftfreq(shape[1])[None, :] * stretch[0]
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * (np.hypot(fx, fy) + 1 / size) ** -beta
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape)
    return np.clip(0.5 + 0.18 * field / field.std(), 0, 1).astype(np.float32)


def smooth(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Return the smooth step of ``value``: 0 below ``low``, 1 above ``high``."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blend(under: np.ndarray, over: np.ndarray | Vector, alpha: np.ndarray) -> np.ndarray:
    """Lay a colour, or another canvas, over a canvas."""
    return under + (np.asarray(over, np.float32) - under) * alpha[..., None]


def polygon(points: list[tuple[float, float]], soft: float = 0.7) -> np.ndarray:
    """Return the mask of a polygon with a soft edge."""
    image = Image.new("L", (WIDTH * 2, HEIGHT * 2))
    ImageDraw.Draw(image).polygon([(x * 2, y * 2) for x, y in points], fill=255)
    image = image.filter(ImageFilter.GaussianBlur(soft * 2)).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.asarray(image, np.float32) / 255


def sky(rng: np.random.Generator, top: Vector, low: Vector, cover: float = 0.5, horizon: float = 0.55) -> np.ndarray:
    """Return a sky: a gradient down to the horizon, and clouds that flatten towards it."""
    t = np.clip(Y / (HEIGHT * horizon), 0, 1) ** 0.8
    canvas = blend(np.full((HEIGHT, WIDTH, 3), top, np.float32), low, t)
    cloud = fractal(rng, 140, 1.6, (2.6, 1.0))
    lit = np.clip(0.88 + 1.2 * (cloud - np.roll(cloud, -9, axis=0)), 0.65, 1)
    alpha = smooth(1 - cover, 1.3 - cover, cloud) * (1 - 0.5 * t)
    return blend(canvas, lit[..., None] * f32([1, 0.99, 0.97]), 0.9 * alpha)


def foliage(
    rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, dark: Vector, light: Vector, leaf: float = 14
) -> np.ndarray:
    """Cover the pixels where ``mask`` is above a half with leaves; ``leaf`` is the size of a clump in pixels."""
    clump, lit = fractal(rng, leaf, 1.1), fractal(rng, leaf, 1.0)
    colour = blend(np.full(canvas.shape, dark, np.float32), light, smooth(0.3, 0.85, 0.7 * clump + 0.3 * lit))
    return blend(canvas, colour, smooth(0.45, 0.6, mask + 0.8 * (clump - 0.5)))


def tree(
    rng: np.random.Generator, canvas: np.ndarray, x: float, base: float, tall: float, tone: float = 1
) -> np.ndarray:
    """Draw a leafy tree that stands at (x, base)."""
    wide = tall * 0.035
    canvas = blend(
        canvas,
        (0.2 * tone, 0.16 * tone, 0.12 * tone),
        polygon(
            [(x - wide, base), (x + wide, base), (x + wide / 2, base - tall * 0.6), (x - wide / 2, base - tall * 0.6)]
        ),
    )
    mask = 1.35 - np.hypot((X - x) / (tall * 0.33), (Y - base + tall * 0.62) / (tall * 0.38))
    return foliage(rng, canvas, mask, (0.08 * tone, 0.13 * tone, 0.06 * tone), (0.38 * tone, 0.47 * tone, 0.2 * tone))


def finish(rng: np.random.Generator, canvas: np.ndarray, blur: float = 0.5, grain: float = 0.016) -> Image.Image:
    """Return the canvas as a picture, with the faults of a camera: soft focus, dark corners, grain."""
    radius = np.hypot((X - WIDTH / 2) / WIDTH, (Y - HEIGHT / 2) / HEIGHT)
    canvas = np.clip(canvas, 0, 1) * (1 - 0.35 * radius[..., None] ** 2)
    image = Image.fromarray((canvas * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    speck = fractal(rng, 2, 1.0)[..., None] - 0.5
    return Image.fromarray(np.clip(np.asarray(image) + speck * grain * 255 * 3, 0, 255).astype(np.uint8))


# --- Landscapes: a height map, drawn from near to far ----------------------------------------------------------------

MAP = 768  # points along a side; the eye stands in the middle of the near side


def sample(field: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return a periodic map's values between its points."""
    x0, z0 = np.floor(x).astype(int), np.floor(z).astype(int)
    u, v = x - x0, z - z0
    if field.ndim == 3:
        u, v = u[..., None], v[..., None]
    x0, x1, z0, z1 = x0 % MAP, (x0 + 1) % MAP, z0 % MAP, (z0 + 1) % MAP
    return (field[z0, x0] * (1 - u) + field[z0, x1] * u) * (1 - v) + (field[z1, x0] * (1 - u) + field[z1, x1] * u) * v


def shade(height: np.ndarray, sun: Vector) -> np.ndarray:
    """Return how brightly the sun lights each point of a height map."""
    dz, dx = np.gradient(height)
    light = (sun[1] - dx * sun[0] - dz * sun[2]) / np.sqrt((1 + dx**2 + dz**2) * sum(s * s for s in sun))
    return 0.35 + 0.75 * np.clip(light, 0, 1)


def landscape(
    canvas: np.ndarray, height: np.ndarray, colour: np.ndarray, eye: float, horizon: float, haze: Vector, clear: float
) -> np.ndarray:
    """Draw a height map over a sky; ``clear`` is the distance at which haze has taken two thirds."""
    big = np.asarray(Image.fromarray((np.clip(canvas, 0, 1) * 255).astype(np.uint8)).resize((2 * WIDTH, 2 * HEIGHT)))
    out, rows = big.astype(np.float32) / 255, np.arange(2 * HEIGHT)[:, None]
    across, top = (np.arange(2 * WIDTH) - WIDTH) / (2 * WIDTH), np.full(2 * WIDTH, 2 * HEIGHT)
    for z in np.geomspace(2, MAP - 2, 900):
        x = MAP / 2 + across * z
        edge = 2 * (HEIGHT * horizon) - (sample(height, x, np.full_like(x, z)) - eye) / z * 2 * WIDTH
        edge = np.clip(np.ceil(edge), 0, 2 * HEIGHT).astype(int)
        fill = (rows >= edge) & (rows < top)
        fog = 1 - np.exp(-z / clear)
        tint = sample(colour, x, np.full_like(x, z)) * (1 - fog) + f32(haze) * fog
        out[fill] = np.broadcast_to(tint[None], out.shape)[fill]
        top = np.minimum(top, edge)
    return out.reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))


def ground(
    rng: np.random.Generator, size: float, beta: float = 1.7, stretch: tuple[float, float] = (1, 1)
) -> np.ndarray:
    """Return noise of the size of a map."""
    return fractal(rng, size, beta, stretch, (MAP, MAP))


def paint_map(tone: np.ndarray, dark: Vector, light: Vector) -> np.ndarray:
    """Return colours between two, by ``tone``."""
    return f32(dark) + (f32(light) - f32(dark)) * tone[..., None]


MZ, MX = np.mgrid[0:MAP, 0:MAP].astype(np.float32)


def mountain(rng: np.random.Generator) -> Image.Image:
    """Snowy ridges above dark woods."""
    ridge = 1 - 2 * np.abs(ground(rng, 300, 2.5) - 0.5)
    rise = smooth(120, 520, MZ) * (1 - 0.3 * smooth(560, 760, MZ))
    height = rise * (150 * ridge**2 + 110 * ground(rng, 300, 2.4)) + 8 * ground(rng, 60, 1.8)
    dz, dx = np.gradient(height)
    rock = paint_map(ground(rng, 30, 1.2), (0.34, 0.32, 0.31), (0.6, 0.57, 0.53))
    wood = paint_map(ground(rng, 5, 1), (0.08, 0.12, 0.07), (0.3, 0.36, 0.2))
    colour = blend(rock, wood, smooth(85, 45, height + 70 * (ground(rng, 60, 1.4) - 0.5)))
    snow = height + 60 * (ground(rng, 60, 1.3) - 0.5) - 22 * np.hypot(dx, dz)
    colour = blend(colour, (1.05, 1.05, 1.08), smooth(105, 125, snow))
    colour = colour * shade(height, (-1.0, 0.6, -0.1))[..., None] * 1.1
    canvas = sky(rng, (0.25, 0.42, 0.68), (0.7, 0.8, 0.9), 0.42)
    return finish(rng, landscape(canvas, height, colour, 40, 0.72, (0.7, 0.78, 0.87), 1500))


def coast(rng: np.random.Generator) -> Image.Image:
    """Surf on a beach, open sea, a headland to one side."""
    inland = 34 - MZ + 0.16 * (MX - 384) + 14 * (ground(rng, 120, 2) - 0.5)
    cape = smooth(0, 90, MX - 430 - 0.25 * np.abs(MZ - 330) + 50 * (ground(rng, 90, 1.8) - 0.5)) * smooth(230, 270, MZ)
    height = np.clip(inland * 0.1, -1, 3) + 60 * cape * (0.4 + ground(rng, 90, 1.8))
    wave = ground(rng, 26, 1.2, (4, 1))
    sea = paint_map(wave, (0.12, 0.3, 0.42), (0.45, 0.64, 0.7))
    crest = np.sin(inland / 4 + 5 * ground(rng, 60, 1.8, (3, 1)))
    foam = smooth(0.6, 0.8, 0.3 + 0.35 * crest + 0.6 * (wave - 0.3)) * smooth(-60, -6, inland)
    sea = blend(sea, (0.98, 0.98, 0.98), foam)
    sand = paint_map(ground(rng, 10, 1.2, (3, 1)), (0.7, 0.61, 0.48), (0.88, 0.8, 0.66))
    sand = blend(sand, (0.5, 0.45, 0.38), 0.7 * smooth(9, 0, inland))
    land = blend(sand, paint_map(ground(rng, 12, 1.1), (0.2, 0.2, 0.15), (0.5, 0.47, 0.36)), smooth(0.0, 0.1, cape))
    land = land * shade(height, (-0.7, 0.8, -0.2))[..., None]
    colour = blend(sea, land, np.maximum(smooth(-1, 1, inland), smooth(0, 0.05, cape)))
    canvas = sky(rng, (0.3, 0.5, 0.75), (0.86, 0.9, 0.93), 0.5, 0.45)
    return finish(rng, landscape(canvas, height + 0.6 * wave, colour, 12, 0.45, (0.72, 0.8, 0.86), 1200))


def open_country(rng: np.random.Generator) -> Image.Image:
    """Rolling fields with hedges, low hills behind."""
    height = 26 * ground(rng, 260, 2.3) * smooth(0, 120, MZ) + 40 * smooth(420, 760, MZ) * ground(rng, 180, 2.0)
    bend = 60 * (ground(rng, 200, 2.2) - 0.5)
    column, row = np.floor((MX + bend) / 85), np.floor((MZ + 0.4 * MX + bend) / 60)
    field = np.modf(np.abs(np.sin(column * 12.9 + row * 78.2)) * 437.5)[0]
    colour = paint_map(field, (0.3, 0.38, 0.16), (0.72, 0.66, 0.36)) * (0.75 + 0.5 * ground(rng, 8, 1.0))[..., None]
    along, over = (MX + bend) / 85 % 1, (MZ + 0.4 * MX + bend) / 60 % 1
    edge = np.minimum(np.minimum(along, 1 - along), np.minimum(over, 1 - over))
    clump = ground(rng, 9, 1.1)
    hedge = smooth(0.04, 0, edge) * smooth(0.35, 0.5, clump)
    wood = np.maximum(hedge, smooth(0.6, 0.66, ground(rng, 90, 1.7)) * smooth(200, 300, MZ))
    colour = blend(colour, paint_map(clump, (0.05, 0.08, 0.04), (0.26, 0.3, 0.13)), wood)
    height = height + wood * (2 + 5 * clump)
    colour = colour * shade(height, (-0.8, 0.8, 0.1))[..., None]
    canvas = sky(rng, (0.3, 0.5, 0.78), (0.8, 0.87, 0.92), 0.55, 0.45)
    return finish(rng, landscape(canvas, height, colour, 36, 0.42, (0.7, 0.77, 0.84), 800))


def doubtful_coast_or_open_country(rng: np.random.Generator) -> Image.Image:
    """A flat grassy bank, still water, a low wooded shore beyond."""
    inland = 36 - MZ + 0.3 * (MX - 384) + 60 * (ground(rng, 200, 2) - 0.5)
    clump, wave = ground(rng, 10, 1.1), ground(rng, 26, 1.2, (4, 1))
    grass = paint_map(ground(rng, 40, 1.3), (0.3, 0.36, 0.17), (0.6, 0.57, 0.34)) * (0.85 + 0.3 * clump)[..., None]
    far = smooth(0, 60, MZ - 520 + 120 * (ground(rng, 200, 2) - 0.5))
    sea = paint_map(wave, (0.2, 0.36, 0.46), (0.46, 0.62, 0.68))
    colour = blend(sea, grass * shade(2 * clump, (-0.8, 0.8, 0.1))[..., None], np.maximum(smooth(-1, 1, inland), far))
    height = np.clip(inland * 0.03, 0, 2) + 14 * far * ground(rng, 120, 1.9) + 0.4 * wave
    canvas = sky(rng, (0.36, 0.53, 0.76), (0.84, 0.88, 0.92), 0.5, 0.45)
    return finish(rng, landscape(canvas, height, colour, 14, 0.43, (0.72, 0.79, 0.85), 900))


def forest(rng: np.random.Generator) -> Image.Image:
    """Trunks from far and pale to near and dark, leaves above, undergrowth below."""
    canvas = np.full((HEIGHT, WIDTH, 3), (0.9, 0.93, 0.84), np.float32)
    canvas = foliage(rng, canvas, 0.45 + 0.3 * (fractal(rng, 100) - 0.5), (0.3, 0.4, 0.24), (0.75, 0.8, 0.52), 30)
    for near in np.linspace(0, 1, 6):
        floor = HEIGHT * (0.56 + 0.4 * near)
        for _ in range(int(18 - 15 * near)):
            x, wide, lean = rng.uniform(-10, WIDTH + 10), rng.uniform(1, 3) + 9 * near**1.6, rng.uniform(-30, 30)
            low, high = (floor + 9, wide), (-5, wide * 0.65)
            foot = [(x + side * low[1], low[0]) for side in (-1, 1)]
            body = polygon(foot + [(x + lean + side * high[1], high[0]) for side in (1, -1)])
            tone = f32([0.5, 0.46, 0.38]) * (1 - 0.65 * near)
            centre = x + lean * (floor - Y) / floor
            bark = (fractal(rng, 24, 1.1, (0.4, 3)) + 0.4) * np.clip(0.8 - 0.6 * (X - centre) / (wide + 1), 0.3, 1.7)
            canvas = blend(canvas, tone * (bark * 1.6)[..., None], body)
        dark = f32([0.24, 0.3, 0.15]) * (1 - 0.75 * near)
        light = f32([0.66, 0.74, 0.4]) * (1 - 0.2 * near)
        crown = 0.5 - 1.1 * (Y / HEIGHT - 0.2 + 0.15 * near) + 1.2 * (fractal(rng, 140) - 0.55)
        bush = 0.5 + 3 * (Y - floor) / HEIGHT + 0.9 * (fractal(rng, 90) - 0.5)
        for mask in (crown, bush):
            canvas = foliage(rng, canvas, mask, tuple(dark), tuple(light), 8 + 12 * near)
    return finish(rng, canvas, 0.75, 0.006)


# --- Things built of boxes: a small ray tracer; x goes right, y up, z away -------------------------------------------


@dataclass(frozen=True)
class Box:
    """A box with its sides along the axes."""

    low: Vector
    high: Vector
    colour: Vector
    paint: Paint | None = None
    glow: float = 0.0


def box(x: float, y: float, z: float, size: Vector, colour: Vector, paint: Paint | None = None, glow: float = 0) -> Box:
    """Return a box that stands on the middle of its bottom."""
    w, h, d = size
    return Box((x - w / 2, y, z - d / 2), (x + w / 2, y + h, z + d / 2), colour, paint, glow)


def trace(origin: np.ndarray, ray: np.ndarray, boxes: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Return for each ray the distance to the first box, infinite for none, and the number of that box."""
    inverse = 1 / np.where(np.abs(ray) < 1e-6, f32(1e-6), ray)
    best, which = np.full(ray.shape[1], np.inf, np.float32), np.zeros(ray.shape[1], int)
    for number, item in enumerate(boxes):
        a = (f32(item.low)[:, None] - origin) * inverse
        b = (f32(item.high)[:, None] - origin) * inverse
        near, far = np.minimum(a, b).max(axis=0), np.maximum(a, b).min(axis=0)
        hit = (near < far) & (near > 2e-3) & (near < best)
        best[hit], which[hit] = near[hit], number
    return best, which


@dataclass(frozen=True)
class Light:
    """The light: its place, its breadth, its colours, and how dark it leaves the corners."""

    place: Vector
    spread: float
    direct: float = 1.0
    ambient: float = 0.5
    reach: float = 4.0
    warm: Vector = (1.0, 0.96, 0.88)
    haze: Vector = (0.75, 0.8, 0.85)
    clear: float = 1e6


def render(
    rng: np.random.Generator,
    boxes: list[Box],
    canvas: np.ndarray,
    eye: Vector,
    light: Light,
    pitch: float = 0,
    yaw: float = 0,
    focal: float = 0.9,
    passes: int = 4,
) -> np.ndarray:
    """Draw boxes over a canvas, with soft shadows; ``focal`` is in picture widths, the angles in degrees."""
    low, high = f32([b.low for b in boxes]).T, f32([b.high for b in boxes]).T
    colours, glows = f32([b.colour for b in boxes]).T ** 2.2, f32([b.glow for b in boxes])
    (cp, cy), (sp, sy) = np.cos(np.radians([pitch, yaw])), np.sin(np.radians([pitch, yaw]))
    total, behind = np.zeros((3, X.size), np.float32), canvas.reshape(-1, 3).T ** 2.2
    for _ in range(passes):
        u = (X.ravel() + rng.random(X.size) - WIDTH / 2) / (WIDTH * focal)
        v = (HEIGHT / 2 - Y.ravel() - rng.random(X.size)) / (WIDTH * focal)
        v, w = v * cp + sp, cp - v * sp
        ray = np.stack([u * cy + w * sy, v, w * cy - u * sy]).astype(np.float32)
        ray /= np.linalg.norm(ray, axis=0)
        far, which = trace(f32(eye)[:, None], ray, boxes)
        seen = np.flatnonzero(np.isfinite(far))
        far, which, ray = far[seen], which[seen], ray[:, seen]
        point = f32(eye)[:, None] + ray * far
        axis = np.minimum(np.abs(point - low[:, which]), np.abs(point - high[:, which])).argmin(axis=0)
        normal = np.zeros_like(point)
        normal[axis, np.arange(seen.size)] = -np.sign(ray[axis, np.arange(seen.size)])
        albedo = colours[:, which].copy()
        for number in np.unique(which):
            if (paint := boxes[number].paint) is not None:
                mine = which == number
                albedo[:, mine] *= paint(point[:, mine], axis[mine])
        start = point + normal * 4e-3
        lamp = f32(light.place)[:, None] + light.spread * rng.standard_normal(point.shape, np.float32) - start
        away = np.linalg.norm(lamp, axis=0)
        lamp /= away
        sun = np.clip((lamp * normal).sum(axis=0), 0, 1) * (trace(start, lamp, boxes)[0] >= away - 0.05)
        scatter = rng.standard_normal(point.shape, np.float32)
        scatter = scatter / np.linalg.norm(scatter, axis=0) + normal
        open_ = np.clip(trace(start, scatter / np.linalg.norm(scatter, axis=0), boxes)[0] / light.reach, 0.08, 1)
        depth = np.full(X.size, 255, np.uint8)
        depth[seen] = open_ * 255
        soft = Image.fromarray(depth.reshape(HEIGHT, WIDTH)).filter(ImageFilter.GaussianBlur(2.5))
        open_ = np.asarray(soft, np.float32).ravel()[seen] / 255
        lit = albedo * (light.ambient * open_ + light.direct * sun * f32(light.warm)[:, None])
        lit = np.where(glows[which] > 0, albedo * glows[which], lit)
        fog = 1 - np.exp(-far / light.clear)
        shown = behind.copy()
        shown[:, seen] = lit + (f32(light.haze)[:, None] ** 2.2 - lit) * fog
        total += np.clip(shown, 0, 1.2)
    return np.clip((total / passes) ** (1 / 2.2), 0, 1).T.reshape(HEIGHT, WIDTH, 3)


def panes(pitch: tuple[float, float], part: tuple[float, float], glass: float = 0.3, seed: float = 0) -> Paint:
    """Return a facade: windows ``pitch`` apart that take ``part`` of it, each a little different."""

    def paint(point: np.ndarray, axis: np.ndarray) -> np.ndarray:
        u, v = np.where(axis == 0, point[2], point[0]) / pitch[0], point[1] / pitch[1]
        a, b = np.abs(u % 1 - 0.5) * 2, np.abs(v % 1 - 0.5) * 2
        inside = (a < part[0]) & (b < part[1]) & (axis != 1)
        luck = np.abs(np.sin(np.floor(u) * 12.9 + np.floor(v) * 78.2 + seed) * 437.5) % 1
        pane = np.where((a < 0.06) | (b > part[1] - 0.08), 0.7, glass * (0.4 + 1.1 * luck) * (0.8 + 0.4 * (v % 1)))
        return np.where(inside, pane, np.where((b > 0.93) & (axis != 1), 0.75, 1.0))

    return paint


def mottle(rng: np.random.Generator, scale: float, depth: float = 0.5, stretch: tuple[float, float] = (1, 1)) -> Paint:
    """Return an uneven surface; ``scale`` is points of the noise per unit of length."""
    field = 1 + depth * 2 * (ground(rng, 60, 1.0, stretch) - 0.5)

    def paint(point: np.ndarray, axis: np.ndarray) -> np.ndarray:
        u = np.where(axis == 0, point[2], point[0])
        return sample(field, u * scale, np.where(axis == 1, point[2], point[1]) * scale)

    return paint


def car(x: float, z: float, colour: Vector, rear: bool = True) -> list[Box]:
    """Return a car, seen from behind or from the front."""
    body = [
        box(x, 0.35, z, (1.8, 0.6, 4.2), colour),
        box(x, 0.95, z + 0.2, (1.5, 0.5, 2.2), (0.1, 0.12, 0.14)),
        box(x, 1.45, z + 0.2, (1.4, 0.06, 2.0), colour),
    ]
    for side in (-0.7, 0.7) if z < 45 else ():
        body += [box(x + side, 0, z + d, (0.25, 0.6, 0.6), (0.03, 0.03, 0.03)) for d in (-1.3, 1.3)]
        body.append(box(x + side, 0.65, z - 2.1, (0.3, 0.18, 0.05), (0.7, 0.1, 0.1) if rear else (0.95, 0.95, 0.9)))
    return body


def road(rng: np.random.Generator, half: float, lanes: list[float]) -> Box:
    """Return a road that runs away from the eye, with edge lines and dashed lanes."""
    rough = mottle(rng, 8, 0.35, (1, 3))

    def paint(point: np.ndarray, axis: np.ndarray) -> np.ndarray:
        x, z = point[0], point[2]
        line = (np.abs(np.abs(x) - half + 0.5) < 0.1) | ((np.abs(x[:, None] - lanes).min(1) < 0.09) & (z % 9 < 4))
        return np.where(line, 6.0, rough(point, axis))

    return Box((-half, -1, -20), (half, 0.02, 900), (0.36, 0.36, 0.37), paint)


def highway(rng: np.random.Generator) -> Image.Image:
    """A motorway to the horizon, with cars, barriers and low hills."""
    grass = Box((-600, -1, -20), (600, -0.05, 900), (0.42, 0.45, 0.26), mottle(rng, 2, 0.6))
    boxes = [road(rng, 8.5, [-4.0, 0.0, 4.0]), grass]
    for x in (-9.3, 9.3):
        boxes.append(Box((x - 0.1, 0.5, 0), (x + 0.1, 0.85, 900), (0.7, 0.7, 0.7)))
        boxes += [box(x, 0, z, (0.15, 0.7, 0.15), (0.5, 0.5, 0.5)) for z in range(6, 90, 4)]
        boxes += [box(x * 1.24, 0, z, (0.25, 10, 0.25), (0.4, 0.4, 0.4)) for z in (25, 60, 95, 130)]
    for x, z, tone in ((2, 19, 0.75), (6, 42, 0.25), (-2, 30, 0.5), (-6, 55, 0.8), (2, 80, 0.2)):
        boxes += car(x, z, (tone, tone * 0.95, tone * 0.9), x > 0)
    canvas = sky(rng, (0.32, 0.5, 0.76), (0.84, 0.89, 0.93), 0.55, 0.45)
    hill = smooth(0, 2, Y - HEIGHT * 0.36 - 50 * (fractal(rng, 200, 2.2)[100] - 0.5))
    canvas = foliage(rng, canvas, hill, (0.3, 0.37, 0.35), (0.5, 0.56, 0.48), 10)
    light = Light((-300, 420, -160), 8, reach=8, clear=260)
    return finish(rng, render(rng, boxes, canvas, (1.0, 3.4, 0), light, pitch=-3))


def street(rng: np.random.Generator) -> Image.Image:
    """Facades on both sides of a narrowing road, parked cars."""
    boxes = [road(rng, 4.2, [0.0])]
    boxes += [Box((s * 8 - 3.8, -1, -20), (s * 8 + 3.8, 0.15, 900), (0.55, 0.54, 0.52)) for s in (-1, 1)]
    for side in (-1, 1):
        z = 2.0
        while z < 150:
            deep, tall, tone = rng.uniform(9, 18), rng.uniform(10, 20), rng.uniform(0.45, 0.85)
            face, at = panes((rng.uniform(2.2, 3.2), 3.3), (0.45, 0.6), 0.25, z), z + deep / 2
            boxes += [
                box(side * 12.5, 0, at, (11, tall, deep), (tone, tone * rng.uniform(0.8, 0.97), tone * 0.8), face),
                box(side * 12.3, tall, at, (11.4, 0.5, deep), (0.5, 0.48, 0.46)),
                box(side * 7.0, 2.7, at, (1.2, 0.3, deep * 0.8), (0.5 * tone, 0.3, 0.25)),
            ]
            z += deep
        for z in np.arange(10, 80, 6.5):
            tone = rng.uniform(0.1, 0.85)
            boxes += car(side * 3.2, z, (tone, tone * rng.uniform(0.7, 1), tone * 0.9), side > 0)
        boxes += [box(side * 5, 0, z, (0.15, 6, 0.15), (0.15, 0.15, 0.15)) for z in (14, 34, 60)]
    canvas = sky(rng, (0.5, 0.62, 0.8), (0.9, 0.92, 0.94), 0.6, 0.5)
    light = Light((-120, 420, -160), 8, ambient=0.7, reach=14, clear=220)
    return finish(rng, render(rng, boxes, canvas, (0.6, 2.2, 0), light, pitch=4, focal=0.75))


def tall_building(rng: np.random.Generator) -> Image.Image:
    """Towers seen from the street below."""
    boxes = [Box((-300, -1, -50), (300, 0, 600), (0.4, 0.4, 0.4))]
    for x, z, w, tall, tone, cell in (
        (4, 70, 26, 105, 0.8, (2.0, 3.4)),
        (-34, 95, 30, 95, 0.55, (3.4, 3.8)),
        (42, 110, 28, 88, 0.62, (2.6, 3.2)),
        (-4, 170, 40, 150, 0.6, (3, 4)),
        (-75, 140, 34, 80, 0.7, (3, 3.5)),
        (85, 150, 36, 70, 0.5, (3, 3.5)),
    ):
        boxes += [
            box(x, 0, z, (w, tall, w), (tone, tone * 0.96, tone * 0.9), panes(cell, (0.62, 0.6), 0.3, x)),
            box(x, tall, z, (w * 0.5, 6, w * 0.5), (0.5, 0.5, 0.5)),
            box(x, tall, z, (0.6, 18, 0.6), (0.4, 0.4, 0.4)),
        ]
    canvas = sky(rng, (0.3, 0.48, 0.75), (0.75, 0.84, 0.92), 0.5, 1.0)
    light = Light((-420, 420, -300), 10, reach=40, clear=500)
    return finish(rng, render(rng, boxes, canvas, (0, 2, 0), light, pitch=30, focal=0.6))


def suburb(rng: np.random.Generator) -> Image.Image:
    """A house behind a lawn and a drive."""
    brick, pane = mottle(rng, 30, 0.25, (3, 1)), (0.2, 0.24, 0.28)
    boxes = [
        Box((-200, -1, -20), (200, 0, 300), (0.36, 0.46, 0.2), mottle(rng, 20, 0.6)),
        Box((3.6, -1, -20), (8.2, 0.03, 21), (0.68, 0.67, 0.64), mottle(rng, 8, 0.15)),
        box(-2.5, 0, 25, (11, 3.0, 9), (0.7, 0.55, 0.45), brick),
        box(6, 0, 24.5, (6.4, 3.0, 9), (0.75, 0.7, 0.62), brick),
        box(6, 0, 19.98, (4.6, 2.3, 0.1), (0.88, 0.88, 0.86), panes((1.15, 0.575), (0.9, 0.85), 2.0)),
        box(0.8, 0, 20.45, (1.1, 2.2, 0.1), (0.35, 0.16, 0.12)),
        box(0.8, 0, 19.6, (2.2, 0.2, 1.8), (0.6, 0.6, 0.58)),
    ]
    for x in (-5.6, -2.4):
        boxes += [box(x, 0.9, 20.47, (2.2, 1.5, 0.1), (0.9, 0.9, 0.9))]
        boxes += [box(x + d, 1, 20.4, (0.95, 1.3, 0.1), pane) for d in (-0.5, 0.5)]
    for step in np.linspace(0, 1, 26):  # the roofs, in steps too fine to see
        y = 3.0 + 2.6 * step
        boxes += [
            box(-2.5, y, 25, (12.2 - 2.5 * step, 0.11, 10 * (1 - step)), (0.33, 0.27, 0.25), mottle(rng, 20, 0.3)),
            box(6, y - 0.1, 24.3, (7.4 * (1 - step), 0.11, 10), (0.36, 0.3, 0.27)),
        ]
    canvas = sky(rng, (0.36, 0.55, 0.8), (0.82, 0.88, 0.93), 0.5, 0.55)
    for x, tall in ((40, 150), (150, 110), (330, 120), (440, 170)):
        canvas = tree(rng, canvas, x, 215, tall, 0.9)
    light = Light((-200, 300, -260), 6, reach=5)
    canvas = render(rng, boxes, canvas, (0.5, 1.9, 0), light, pitch=1, focal=0.95)
    canvas = tree(rng, canvas, 52, 262, 200)
    shrub = 1.4 - np.minimum.reduce([np.hypot((X - x) / 26, (Y - 232) / 15) for x in (120, 165, 205, 440)])
    return finish(rng, foliage(rng, canvas, shrub, (0.06, 0.1, 0.05), (0.34, 0.42, 0.2), 8))


def room(rng: np.random.Generator, half: float, deep: float, tall: float, floor: Vector, wall: Vector) -> list[Box]:
    """Return the floor, ceiling and three walls of a room."""
    return [
        Box((-half, -1, -3), (half, 0, deep), floor, mottle(rng, 40, 0.35, (1, 6))),
        Box((-half, tall, -3), (half, tall + 1, deep), (0.92, 0.92, 0.9)),
        Box((-half - 1, 0, -3), (-half, tall, deep), wall),
        Box((half, 0, -3), (half + 1, tall, deep), wall),
        Box((-half, 0, deep), (half, tall, deep + 1), wall),
    ]


def window(x: float, y: float, z: float, w: float, h: float) -> list[Box]:
    """Return a bright window on a back wall, with its frame and curtains."""
    boxes = [box(x, y, z, (w, h, 0.04), (0.95, 0.97, 1.0), glow=1.2), box(x, y, z, (0.06, h, 0.1), (0.9, 0.9, 0.88))]
    boxes += [box(x, y + d, z, (w + 0.1, 0.07, 0.12), (0.9, 0.9, 0.88)) for d in (-0.07, h / 2, h)]
    return boxes + [box(x + s * (w / 2 + 0.12), y - 0.5, z, (0.4, h + 0.7, 0.16), (0.75, 0.7, 0.62)) for s in (-1, 1)]


DARK = np.zeros((HEIGHT, WIDTH, 3), np.float32)


def bedroom(rng: np.random.Generator) -> Image.Image:
    """A double bed with pillows, night tables and lamps."""
    cloth, wood = mottle(rng, 25, 0.25), (0.36, 0.22, 0.13)
    boxes = room(rng, 2.4, 5, 2.6, (0.5, 0.36, 0.25), (0.8, 0.76, 0.68)) + window(-1.5, 1.1, 4.97, 1.0, 1.2)
    boxes += [
        box(0.5, 0, 3.85, (1.9, 0.35, 2.1), wood),
        box(0.5, 0.35, 3.85, (1.86, 0.25, 2.06), (0.92, 0.9, 0.86), cloth),
        box(0.5, 0.3, 3.5, (1.96, 0.34, 1.4), (0.55, 0.6, 0.7), cloth),
        box(0.5, 0, 4.94, (2.1, 1.25, 0.1), wood),
        box(0.5, 1.5, 4.97, (0.9, 0.6, 0.05), wood),
        box(0.5, 1.55, 4.94, (0.8, 0.5, 0.05), (0.75, 0.7, 0.55), mottle(rng, 60, 0.8)),
    ]
    for x in (0.05, 0.95):
        boxes.append(box(x, 0.6, 4.6, (0.72, 0.2, 0.42), (0.96, 0.95, 0.93), cloth))
        boxes.append(box(x, 0.62, 4.42, (0.5, 0.22, 0.2), (0.7, 0.5, 0.4), cloth))
    for x in (-0.8, 1.85):
        boxes.append(box(x, 0, 4.7, (0.5, 0.55, 0.45), wood))
        boxes.append(box(x, 0.55, 4.7, (0.08, 0.35, 0.08), (0.7, 0.6, 0.4)))
        boxes.append(box(x, 0.85, 4.7, (0.32, 0.28, 0.32), (1, 0.9, 0.7), glow=0.95))
    light = Light((-1.2, 2.0, 1.5), 0.15, 0.7, 0.6, 1.4)
    return finish(rng, render(rng, boxes, DARK, (-0.7, 1.55, 0), light, pitch=-9, yaw=8, focal=0.75))


def goods(point: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Paint shelves full of packets, tins and bottles."""
    u, v = np.where(axis == 0, point[2], point[0]), point[1]
    shelf = np.floor(v / 0.42)
    kind = np.floor(u / 0.62 + 0.37 * shelf)
    luck = np.stack([np.abs(np.sin(kind * 12.9 + shelf * 78.2 + c) * 437.5) % 1 for c in (0.0, 0.25, 0.6)])
    luck = 0.08 + 0.65 * luck + 0.27 * luck.mean(axis=0)
    a, b = u / (0.1 + 0.1 * luck[1]) % 1, (v / 0.42 % 1) / (0.55 + 0.4 * luck[0])
    label = (np.abs(a - 0.5) < 0.3) & (np.abs(b - 0.5) < 0.2)
    item = np.where(label, 1.1 - luck, luck) * (0.3 + 0.7 * np.sin(np.pi * a))
    return np.where(b > 1, 0.04, np.where(v / 0.42 % 1 < 0.09, 0.85, item))


def store(rng: np.random.Generator) -> Image.Image:
    """An aisle between shelves crammed with goods."""
    boxes = room(rng, 3, 16, 3.4, (0.75, 0.73, 0.7), (0.8, 0.8, 0.78))
    for x in (-2.2, 2.2):
        boxes.append(box(x, 0, 8.2, (1.3, 2.3, 14.4), (1, 1, 1), goods))
        boxes += [box(x, y, 8.2, (1.5, 0.04, 14.4), (0.8, 0.8, 0.8)) for y in np.arange(0, 2.6, 0.42)]
        for z in np.arange(1.5, 12, 0.5):
            y = rng.integers(0, 5) * 0.42 + 0.05
            boxes.append(box(x * 0.67, y, z, (0.2, 0.3, 0.25), tuple(0.2 + 0.3 * rng.random(3) + 0.4 * rng.random())))
    boxes.append(box(0, 0, 15.2, (3, 2.3, 0.8), (1, 1, 1), goods))
    boxes += [box(x, 3.3, z, (0.25, 0.06, 1.6), (1, 1, 1), glow=1.2) for z in range(2, 16, 3) for x in (-0.9, 0.9)]
    boxes += [box(0, 2.5, z, (1.3, 0.4, 0.04), (0.7, 0.25, 0.2)) for z in (5, 10)]
    light = Light((0, 2.6, 4), 0.2, 0.7, 0.8, 1.5)
    return finish(rng, render(rng, boxes, DARK, (0.2, 1.6, 0), light, pitch=-3, focal=0.7))


def doubtful_kitchen_or_living_room(rng: np.random.Generator) -> Image.Image:
    """One room for both: kitchen units along the left and the back, a sofa and a low table on the right."""
    cloth, wood, steel = mottle(rng, 25, 0.3), (0.5, 0.36, 0.24), (0.6, 0.61, 0.62)
    boxes = room(rng, 2.8, 5.5, 2.6, (0.55, 0.42, 0.3), (0.84, 0.8, 0.72))
    boxes += [
        box(-2.45, 0, 3.6, (0.65, 0.88, 3.6), wood, panes((0.6, 0.9), (0.9, 0.9), 1.6)),
        box(-2.42, 0.88, 3.6, (0.72, 0.05, 3.6), (0.3, 0.3, 0.31)),
        box(-2.6, 1.5, 3.6, (0.38, 0.75, 3.4), wood, panes((0.6, 0.9), (0.9, 0.9), 1.6)),
        box(-1.3, 0, 5.15, (0.75, 1.9, 0.7), (0.85, 0.86, 0.86)),
        box(0.1, 0, 5.2, (2.0, 0.88, 0.6), wood, panes((0.5, 0.9), (0.9, 0.9), 1.6)),
        box(0.1, 0.88, 5.2, (2.1, 0.05, 0.66), (0.3, 0.3, 0.31)),
        box(0.1, 1.5, 5.3, (2.0, 0.75, 0.38), wood, panes((0.5, 0.9), (0.9, 0.9), 1.6)),
        box(-1.55, 0.9, 4.78, (0.04, 0.5, 0.04), steel),
        box(-2.4, 0.93, 3.2, (0.5, 0.02, 0.6), (0.1, 0.1, 0.1)),
        box(-2.4, 0.95, 3.3, (0.22, 0.18, 0.22), steel),
        box(-2.4, 0.93, 4.3, (0.25, 0.3, 0.25), (0.8, 0.3, 0.2)),
        box(1.7, 0, 3.9, (0.95, 0.42, 2.2), (0.45, 0.33, 0.3), cloth),
        box(2.1, 0.42, 3.9, (0.3, 0.45, 2.2), (0.45, 0.33, 0.3), cloth),
        box(0.5, 0.38, 3.6, (0.7, 0.05, 1.2), wood),
        box(0.5, 0, 3.6, (0.5, 0.38, 0.9), (0.3, 0.2, 0.14)),
        box(0.6, 0.002, 3.6, (2.2, 0.01, 2.4), (0.6, 0.5, 0.42), cloth),
        box(2.78, 1.3, 3.8, (0.05, 0.7, 1.0), (0.3, 0.5, 0.5), mottle(rng, 60, 0.8)),
    ]
    boxes += [
        box(0.6, 0.1, 4.88, (0.62, 0.8, 0.05), (0.9, 0.9, 0.9)),
        box(0.6, 0.25, 4.85, (0.46, 0.36, 0.05), (0.06, 0.06, 0.07)),
        box(0.1, 0.93, 5.49, (2.1, 0.57, 0.03), (0.9, 0.9, 0.88), panes((0.15, 0.15), (0.9, 0.9), 2.2)),
        box(-2.79, 0.93, 3.6, (0.03, 0.57, 3.5), (0.9, 0.9, 0.88), panes((0.15, 0.15), (0.9, 0.9), 2.2)),
    ]
    for _ in range(14):
        tall, tone = rng.uniform(0.1, 0.32), rng.uniform(0.1, 0.9)
        place = (rng.uniform(-0.8, 1), 5.2) if rng.random() < 0.5 else (-2.45, rng.uniform(2.4, 5.2))
        boxes.append(box(place[0], 0.93, place[1], (0.14, tall, 0.14), (tone, tone * 0.8, tone * 0.6)))
    boxes += [box(1.75, 0.42, z, (0.8, 0.16, 0.95), (0.52, 0.4, 0.36), cloth) for z in (3.4, 4.4)]
    boxes += [box(1.7, 0, z, (0.95, 0.62, 0.2), (0.45, 0.33, 0.3), cloth) for z in (2.75, 5.05)]
    light = Light((0.3, 2.0, 2.0), 0.15, 0.7, 0.65, 1.5)
    return finish(rng, render(rng, boxes, DARK, (0.9, 1.5, 0), light, pitch=-8, yaw=-24, focal=0.7))


# --- As a telephone stores them ---------------------------------------------------------------------------------------

PHONE_SIZE = (900, 1200)
ORIENTATION, TURNED_RIGHT = 0x0112, 6  # EXIF: the sensor lies on its side


def by_phone(rng: np.random.Generator, scene: Image.Image) -> Image.Image:
    """Return a scene as an upright photo: warm or cold light, dark corners, sharpened, stored on its side."""
    left = int(rng.integers(0, WIDTH - HEIGHT * 3 // 4))
    photo = scene.crop((left, 0, left + HEIGHT * 3 // 4, HEIGHT)).resize(PHONE_SIZE, Image.Resampling.BICUBIC)
    y, x = np.mgrid[-1 : 1 : PHONE_SIZE[1] * 1j, -1 : 1 : PHONE_SIZE[0] * 1j].astype(np.float32)
    corners = 1 - 0.14 * (x**2 + y**2)
    light = f32([1 + (warm := rng.uniform(-0.08, 0.1)), 1, 1 - warm])
    pixels = np.clip(np.asarray(photo, np.float32) * corners[..., None] * light * 1.06, 0, 255)
    sharpened = Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.UnsharpMask(3, 60, 2))
    return sharpened.transpose(Image.Transpose.ROTATE_90)


# --- Two scenes in one picture ---------------------------------------------------------------------------------------


def both_coast_and_highway(rng: np.random.Generator) -> Image.Image:
    """Return a coast on the left and a highway on the right."""
    left, right = coast(rng), highway(rng)
    joined = Image.new("RGB", (left.width + right.width, left.height))
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width, 0))
    return joined


# --- All of them -----------------------------------------------------------------------------------------------------

PICTURES = (
    coast,
    forest,
    highway,
    mountain,
    open_country,
    street,
    suburb,
    tall_building,
    bedroom,
    store,
    doubtful_coast_or_open_country,
    doubtful_kitchen_or_living_room,
    both_coast_and_highway,
)
PHONE = (coast, street, store)


def main(folder: Path) -> None:
    """Draw every picture into ``folder``, each from its own seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw in PICTURES:
        picture = draw(np.random.default_rng(zlib.crc32(draw.__name__.encode())))
        picture.save(folder / f"{draw.__name__}.jpg", quality=88)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    for draw in PHONE:
        name = f"phone_{draw.__name__}"
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        by_phone(rng, draw(rng)).save(folder / f"{name}.jpg", quality=78, exif=exif)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
