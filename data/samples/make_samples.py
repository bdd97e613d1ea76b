"""Draw the sample pictures: a dozen procedural scenes, ours to give away, to try the classifier on.

They are drawings, not photographs: fractal noise, a height-map renderer for landscapes and a small ray tracer for
everything built of boxes. Ten show one scene each and are named after it; the two ``doubtful_*`` pictures lie between
two scenes on purpose, so that the answer should be an unsure one. Needs numpy and Pillow only. The seeds are fixed:
a second run writes the same bytes.

    python data/samples/make_samples.py [FOLDER]

FOLDER defaults to the folder of this file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 480, 360
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)

Vector = tuple[float, float, float]
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]  # points (3, M), axis of the face (M,) -> colour factor


# --- Primitives: canvases are float arrays (H, W, 3) in 0..1, masks (H, W) in 0..1 ---------------------------------


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
    cloud = fractal(rng, 160, 1.75, (1.0, 2.2))
    lit = np.clip(0.88 + 1.2 * (cloud - np.roll(cloud, -9, axis=0)), 0.65, 1)
    alpha = smooth(1 - cover, 1.3 - cover, cloud) * (1 - 0.5 * t)
    return blend(canvas, lit[..., None] * np.float32([1, 0.99, 0.97]), 0.9 * alpha)


def foliage(
    rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, dark: Vector, light: Vector, leaf: float = 14
) -> np.ndarray:
    """Cover where ``mask`` is above a half, raggedly, with leaves; ``leaf`` is the size of a clump in pixels."""
    clump, lit = fractal(rng, leaf, 1.1), fractal(rng, leaf, 1.0)
    colour = blend(np.full(canvas.shape, dark, np.float32), light, smooth(0.3, 0.85, 0.7 * clump + 0.3 * lit))
    return blend(canvas, colour, smooth(0.45, 0.6, mask + 1.3 * (clump - 0.5)))


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
    return Image.fromarray(np.clip(np.asarray(image) + speck * grain * 255 * 5, 0, 255).astype(np.uint8))


# --- Landscapes: a height map, drawn from near to far ----------------------------------------------------------------

MAP = 768  # points along a side; the eye stands in the middle of the near side


def sample(field: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Look a periodic map up between its points."""
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
        tint = sample(colour, x, np.full_like(x, z)) * (1 - fog) + np.float32(haze) * fog
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
    return np.float32(dark) + (np.float32(light) - np.float32(dark)) * tone[..., None]


MZ, MX = np.mgrid[0:MAP, 0:MAP].astype(np.float32)


def mountain(rng: np.random.Generator) -> Image.Image:
    """Snowy ridges above dark woods."""
    ridge = 1 - 2 * np.abs(ground(rng, 260, 2.1) - 0.5)
    rise = smooth(60, 420, MZ) * (1 - 0.25 * smooth(450, 760, MZ))
    height = rise * (20 + 210 * ridge**2.2 + 90 * ground(rng, 300, 2.2)) + 9 * ground(rng, 30, 1.4)
    dz, dx = np.gradient(height)
    steep = np.hypot(dx, dz)
    colour = paint_map(ground(rng, 30, 1.2), (0.3, 0.28, 0.27), (0.55, 0.52, 0.48))
    colour = blend(
        colour,
        paint_map(ground(rng, 4, 1), (0.06, 0.1, 0.06), (0.2, 0.26, 0.15)),
        smooth(0.1, -0.1, (height - 75) / 90 + 0.5 * (ground(rng, 60, 1.4) - 0.5)),
    )
    colour = blend(colour, (1, 1, 1), smooth(150, 185, height + 60 * (ground(rng, 60, 1.3) - 0.5) - 18 * steep))
    canvas = sky(rng, (0.25, 0.42, 0.68), (0.7, 0.8, 0.9), 0.42)
    colour = colour * shade(height, (-0.9, 0.75, -0.35))[..., None]
    return finish(rng, landscape(canvas, height, colour, 45, 0.62, (0.68, 0.76, 0.86), 1500))


def coast(rng: np.random.Generator) -> Image.Image:
    """A beach that curves away to a headland, surf and open sea."""
    shore = 384 + 0.22 * (MZ - 40) - 60 * smooth(200, 700, MZ) + 26 * (ground(rng, 120, 2) - 0.5)
    inland = MX - shore
    height = np.clip(inland * 0.12, -1, 4) + smooth(60, 160, inland) * (10 + 60 * ground(rng, 150, 2.0))
    wave = fractal(rng, 30, 1.3, (3, 1), (MAP, MAP))
    sea = paint_map(wave, (0.1, 0.28, 0.4), (0.34, 0.55, 0.64))
    surf = smooth(0.62, 0.8, 0.35 + 0.35 * np.sin(inland / 3.2 + 9 * ground(rng, 40, 1.6)) + 0.4 * (wave - 0.3))
    sea = blend(sea, (0.96, 0.97, 0.97), surf * smooth(-45, -6, inland))
    sand = paint_map(ground(rng, 20, 1.2), (0.66, 0.57, 0.44), (0.86, 0.78, 0.64))
    sand = blend(sand, (0.42, 0.36, 0.29), 0.6 * smooth(9, 0, inland))
    grass = paint_map(ground(rng, 12, 1.1), (0.16, 0.2, 0.1), (0.42, 0.42, 0.24))
    land = blend(sand, grass, smooth(50, 80, inland + 30 * (ground(rng, 30, 1.3) - 0.5)))
    land = land * shade(height, (-0.7, 0.8, -0.2))[..., None]
    colour, height = blend(sea, land, smooth(-1.5, 1.5, inland)), np.where(inland < 0, 0.3 * wave, height)
    canvas = sky(rng, (0.3, 0.5, 0.75), (0.8, 0.87, 0.92), 0.55, 0.4)
    return finish(rng, landscape(canvas, height, colour, 22, 0.4, (0.72, 0.8, 0.86), 900))


def open_country(rng: np.random.Generator) -> Image.Image:
    """Rolling fields with hedges, low hills behind."""
    height = 26 * ground(rng, 260, 2.3) * smooth(0, 120, MZ) + 40 * smooth(420, 760, MZ) * ground(rng, 180, 2.0)
    bend = 60 * (ground(rng, 200, 2.2) - 0.5)
    column, row = np.floor((MX + bend) / 85), np.floor((MZ + 0.4 * MX + bend) / 60)
    field = np.modf(np.abs(np.sin(column * 12.9 + row * 78.2)) * 437.5)[0]
    colour = paint_map(field, (0.3, 0.38, 0.16), (0.72, 0.66, 0.36)) * (0.75 + 0.5 * ground(rng, 8, 1.0))[..., None]
    edge = np.minimum(np.abs((MX + bend) / 85 % 1 - 0.5), np.abs((MZ + 0.4 * MX + bend) / 60 % 1 - 0.5))
    clump = ground(rng, 9, 1.1)
    hedge = (
        smooth(0.45, 0.48, edge * 0 + 0.5 - 0)
        * smooth(
            0.04,
            0.0,
            0.5 - np.maximum(np.abs((MX + bend) / 85 % 1 - 0.5), np.abs((MZ + 0.4 * MX + bend) / 60 % 1 - 0.5)),
        )
        * smooth(0.35, 0.5, clump)
    )
    wood = np.maximum(hedge, smooth(0.6, 0.66, ground(rng, 90, 1.7)) * smooth(200, 300, MZ))
    colour = blend(colour, paint_map(clump, (0.05, 0.08, 0.04), (0.26, 0.3, 0.13)), wood)
    height = height + wood * (2 + 5 * clump)
    colour = colour * shade(height, (-0.8, 0.8, 0.1))[..., None]
    canvas = sky(rng, (0.3, 0.5, 0.78), (0.8, 0.87, 0.92), 0.55, 0.45)
    return finish(rng, landscape(canvas, height, colour, 36, 0.42, (0.7, 0.77, 0.84), 800))


def forest(rng: np.random.Generator) -> Image.Image:
    """Trunks from far and pale to near and dark, leaves above, undergrowth below."""
    canvas = np.full((HEIGHT, WIDTH, 3), (0.78, 0.83, 0.7), np.float32)
    canvas = foliage(rng, canvas, 0.35 + 0.5 * np.abs(Y / HEIGHT - 0.5), (0.3, 0.38, 0.24), (0.72, 0.78, 0.5), 40)
    for near in np.linspace(0, 1, 6):
        floor = HEIGHT * (0.6 + 0.36 * near)
        for _ in range(int(16 - 12 * near)):
            x, wide, lean = rng.uniform(-10, WIDTH + 10), rng.uniform(2, 5) + 13 * near**1.6, rng.uniform(-12, 12)
            tone = np.float32([0.45, 0.42, 0.33]) * (1 - 0.75 * near) + np.float32([0.03, 0.025, 0.02])
            body = polygon(
                [(x - wide, floor + 9), (x + wide, floor + 9), (x + lean + wide * 0.7, -5), (x + lean - wide * 0.7, -5)]
            )
            side = np.clip(0.7 - 0.5 * (X - x) / (wide + 1), 0.3, 1.7)
            bark = fractal(rng, 24, 1.1, (0.4, 3)) + 0.4
            canvas = blend(canvas, tone * (side * bark * 1.6)[..., None], body)
        dark, light = (
            np.float32([0.26, 0.33, 0.16]) * (1 - 0.8 * near),
            np.float32([0.6, 0.68, 0.34]) * (1 - 0.5 * near),
        )
        crown = 0.42 - 1.5 * (Y / HEIGHT - 0.25 + 0.1 * near) + 0.5 * (fractal(rng, 120) - 0.5)
        bush = 0.5 + 3 * (Y - floor) / HEIGHT + 0.5 * (fractal(rng, 90) - 0.5)
        for mask in (crown, bush):
            canvas = foliage(rng, canvas, mask, tuple(dark), tuple(light), 8 + 16 * near)
    return finish(rng, canvas, 0.7, 0.01)


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
    inverse = 1 / np.where(np.abs(ray) < 1e-6, np.float32(1e-6), ray)
    best, which = np.full(ray.shape[1], np.inf, np.float32), np.zeros(ray.shape[1], int)
    for number, item in enumerate(boxes):
        a = (np.float32(item.low)[:, None] - origin) * inverse
        b = (np.float32(item.high)[:, None] - origin) * inverse
        near, far = np.minimum(a, b).max(axis=0), np.maximum(a, b).min(axis=0)
        hit = (near < far) & (near > 2e-3) & (near < best)
        best[hit], which[hit] = near[hit], number
    return best, which


@dataclass(frozen=True)
class Light:
    """Where the light comes from, how broad it is, its colours and how deep corners go dark."""

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
    passes: int = 6,
) -> np.ndarray:
    """Draw boxes over a canvas, with soft shadows; ``focal`` is in picture widths, the angles in degrees."""
    low, high = np.float32([b.low for b in boxes]).T, np.float32([b.high for b in boxes]).T
    colours, glows = np.float32([b.colour for b in boxes]).T ** 2.2, np.float32([b.glow for b in boxes])
    (cp, cy), (sp, sy) = np.cos(np.radians([pitch, yaw])), np.sin(np.radians([pitch, yaw]))
    total, behind = np.zeros((3, X.size), np.float32), canvas.reshape(-1, 3).T ** 2.2
    for _ in range(passes):
        u = (X.ravel() + rng.random(X.size) - WIDTH / 2) / (WIDTH * focal)
        v = (HEIGHT / 2 - Y.ravel() - rng.random(X.size)) / (WIDTH * focal)
        v, w = v * cp + sp, cp - v * sp
        ray = np.stack([u * cy + w * sy, v, w * cy - u * sy]).astype(np.float32)
        ray /= np.linalg.norm(ray, axis=0)
        far, which = trace(np.float32(eye)[:, None], ray, boxes)
        seen = np.flatnonzero(np.isfinite(far))
        far, which, ray = far[seen], which[seen], ray[:, seen]
        point = np.float32(eye)[:, None] + ray * far
        axis = np.minimum(np.abs(point - low[:, which]), np.abs(point - high[:, which])).argmin(axis=0)
        normal = np.zeros_like(point)
        normal[axis, np.arange(seen.size)] = -np.sign(ray[axis, np.arange(seen.size)])
        albedo = colours[:, which].copy()
        for number in np.unique(which):
            if (paint := boxes[number].paint) is not None:
                mine = which == number
                albedo[:, mine] *= paint(point[:, mine], axis[mine])
        start = point + normal * 4e-3
        lamp = np.float32(light.place)[:, None] + light.spread * rng.standard_normal(point.shape, np.float32) - start
        away = np.linalg.norm(lamp, axis=0)
        lamp /= away
        sun = np.clip((lamp * normal).sum(axis=0), 0, 1) * (trace(start, lamp, boxes)[0] >= away - 0.05)
        scatter = rng.standard_normal(point.shape, np.float32)
        scatter = scatter / np.linalg.norm(scatter, axis=0) + normal
        open_ = np.clip(trace(start, scatter / np.linalg.norm(scatter, axis=0), boxes)[0] / light.reach, 0.08, 1)
        lit = albedo * (light.ambient * open_ + light.direct * sun * np.float32(light.warm)[:, None])
        lit = np.where(glows[which] > 0, albedo * glows[which], lit)
        fog = 1 - np.exp(-far / light.clear)
        shown = behind.copy()
        shown[:, seen] = lit + (np.float32(light.haze)[:, None] ** 2.2 - lit) * fog
        total += np.clip(shown, 0, 1.2)
    return np.clip((total / passes) ** (1 / 2.2), 0, 1).T.reshape(HEIGHT, WIDTH, 3)
