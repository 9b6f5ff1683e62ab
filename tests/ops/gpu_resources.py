r"""What compiled GPU programs take of a multiprocessor: read from the machine code, so that no GPU is needed.

``python tests/ops/gpu_resources.py`` writes the table that ``test_gpu.py`` holds programs to.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

TABLE = Path(__file__).with_name("gpu_resources.json")
# Of a multiprocessor of compute capability 8.0 and 9.0.
REGISTERS, WARPS, PROGRAMS = 65536, 64, 32


def tool():
    """Returns the program that reads machine code, None if Triton's wheel has none."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return path if path.exists() else None


def of_binary(cubin, warps):
    """Returns registers of a thread, bytes that they spill, and the share of warps that are there at once."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [tool(), "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = (
        int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK", "LOCAL")
    )
    of_warp = -(-registers // 8) * 8 * 32
    programs = min(PROGRAMS, WARPS // warps, REGISTERS // (of_warp * warps))
    return {"registers": registers, "spilled": stack + local, "occupancy": round(programs * warps / WARPS, 3)}


def of_programs(made):
    """Returns the resources of all programs that ``compile_for`` made, by kernel."""
    return {name: [of_binary(asm["cubin"], asm["warps"]) for asm in asms] for name, asms in made.items()}


if __name__ == "__main__":
    import test_gpu
    import triton

    tables = {
        name: of_programs(test_gpu.compile_for(*program)) for name, program in test_gpu.PROGRAMS.items()
    }
    TABLE.write_text(json.dumps({"triton": triton.__version__, "programs": tables}, indent=1) + "\n")
