"""MelGAN of the published size on a CUDA device, by batch size, as a share of the chip's limit.

Run as `python tests/benchmarks/bench_cuda.py`. The limit is what one large matrix product reaches
on the same chip in the same precision, measured here; the share is that of all multiplications
that the generator asks for (8.3 GMAC a second of sound).
"""

import time
from collections.abc import Callable

import torch
from workload import multiplications_per_second

from services.synth.generation.vocoding import Vocoder
from services.synth.melgan.generator import Generator, MelGanSettings

BATCHES = (1, 4, 16, 64)
SECONDS = 30
ROUNDS = 5
LIMIT_SIZE = 8192


def best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of the fastest round, after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def limit(dtype: torch.dtype) -> float:
    """Multiply-accumulates a second in a large matrix product."""
    matrix = torch.randn(LIMIT_SIZE, LIMIT_SIZE, device="cuda", dtype=dtype)
    return LIMIT_SIZE**3 / best(lambda: matrix @ matrix)


@torch.inference_mode()
def main() -> None:
    if not torch.cuda.is_available():
        print("cuda: this machine offers no CUDA device, so nothing is measured")  # noqa: T201
        return
    print(f"cuda: {torch.cuda.get_device_name()}, {SECONDS} s a sound")  # noqa: T201
    for variant in ("original", "gru"):
        settings = MelGanSettings(variant=variant)  # type: ignore[arg-type]
        generator = Generator(settings).remove_weight_norm().eval().requires_grad_(False).cuda()
        wanted = multiplications_per_second(settings)
        frames = round(SECONDS * settings.mel.sample_rate_hertz / settings.mel.hop_length)
        for dtype in (torch.bfloat16, torch.float32):
            most = limit(dtype)
            for graphs in (False, True):
                vocoder = Vocoder(generator, dtype=dtype, graphs=graphs)
                for batch in BATCHES:
                    mel = torch.randn(batch, settings.n_mels, frames, device="cuda") - 2

                    def work(vocoder: Vocoder = vocoder, mel: torch.Tensor = mel) -> None:
                        for _ in vocoder.chunks(mel):
                            pass

                    speed = batch * SECONDS / best(work)
                    print(  # noqa: T201
                        f"  {variant:<8} {str(dtype)[6:]:<8} {'graphs' if graphs else 'eager':<6} "
                        f"batch {batch:>3}: {speed:8.0f} x real time, "
                        f"{100 * speed * wanted / most:5.1f} % of {most / 1e12:.0f} TMAC/s"
                    )


if __name__ == "__main__":
    main()
