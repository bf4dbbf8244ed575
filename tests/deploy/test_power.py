"""Energy of an inference above idle, from the lines that tegrastats prints on each family."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lesiontk.deploy.runner import power
from lesiontk.deploy.runner.power import NoPowerError, describe_energy, measure_energy, read_power

LINES = {
    "AGX Orin, JetPack 6": (
        "11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) SWAP 126/31390MB (cached 0MB) CPU "
        "[90%@2201,100%@2201,off,off] EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,407] VIC_FREQ 115 "
        "NVDLA0_FREQ @1600 APE 174 CV0@73.625C CPU@77.281C Tboard@62C SOC2@70C GPU@69.125C "
        "VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 1431mW/1241mW VIN_SYS_5V0 4968mW/5048mW "
        "VDDQ_VDD2_1V8AO 1091mW/1091mW",
        3150 + 1431 + 4968,
    ),
    "Orin Nano, JetPack 6": (
        "01-05-2025 10:11:12 RAM 2505/7620MB (lfb 14x4MB) SWAP 0/3810MB (cached 0MB) CPU "
        "[2%@729,0%@729,1%@729] GR3D_FREQ 0% cpu@46.5C soc2@45.1C tj@47C gpu@46.1C VDD_IN "
        "4825mW/4780mW VDD_CPU_GPU_CV 569mW/540mW VDD_SOC 1463mW/1460mW",
        4825,
    ),
    "Xavier NX, JetPack 4": (
        "RAM 1903/7772MB (lfb 1161x4MB) SWAP 0/3886MB (cached 0MB) CPU [10%@1190,off] EMC_FREQ "
        "0%@1600 GR3D_FREQ 0%@114 APE 150 MTS fg 0% bg 0% AO@33C GPU@33.5C PMIC@100C CPU@34.5C "
        "thermal@33.6C VDD_IN 4148/4107 VDD_CPU_GPU_CV 1028/1010 VDD_SOC 1240/1239",
        4148,
    ),
    "AGX Xavier, JetPack 4": (
        "RAM 1181/15697MB (lfb 3384x4MB) CPU [5%@1190,0%@1190,off,off] EMC_FREQ 0% GR3D_FREQ 0% "
        "AO@33.5C GPU@34C Tdiode@36.75C PMIC@100C AUX@33.5C CPU@35C thermal@34C Tboard@34C GPU 0/0 "
        "CPU 311/311 SOC 932/932 CV 0/0 VDDRQ 155/155 SYS5V 1893/1893",
        311 + 932 + 155 + 1893,
    ),
    "Nano, JetPack 4": (
        "RAM 613/3964MB (lfb 634x4MB) IRAM 0/252kB(lfb 252kB) SWAP 0/1982MB (cached 0MB) CPU "
        "[2%@102,1%@102] EMC_FREQ 0% GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C "
        "thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 POM_5V_CPU 123/123",
        900,
    ),
}


@pytest.mark.parametrize(("line", "milliwatts"), LINES.values(), ids=LINES)
def test_the_modules_power_is_read_from_the_rails_of_its_family(line: str, milliwatts: int) -> None:
    assert read_power(line + "\n")[0] == milliwatts


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("RAM 613/3964MB (lfb 634x4MB) CPU [2%@102] GR3D_FREQ 0% CPU@40.5C", "no power rail"),
        ("CPU [2%@102] VDD_NEW 100mW/100mW", "the rails VDD_NEW; expected VDD_IN or POM_5V_IN or"),
        ("VDD_GPU_SOC 3150mW/2971mW VIN_SYS_5V0 1mW/1mW", "the rails VDD_GPU_SOC, VIN_SYS_5V0"),
    ],
)
def test_a_line_without_the_sum_of_a_module_is_no_power(line: str, said: str) -> None:
    with pytest.raises(NoPowerError, match=said):
        read_power(line)


# --------------------------------------------------------------------- measurement


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that puts a program of this shell code on the PATH as tegrastats."""

    def write(code: str) -> Path:
        program = tmp_path / "tegrastats"
        program.write_text(f"#!/bin/sh\n{code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "busy"

    return write


def ticking(step: float = 0.25) -> Callable[[], float]:
    """A clock that passes so many seconds between two looks at it."""
    ticks: Iterator[float] = itertools.count(0.0, step)
    return lambda: next(ticks)


PRINT = """
echo "$@" > {folder}/called
while :; do
  if [ -e {folder}/busy ]; then echo "{busy}"; else echo "{idle}"; fi
  sleep 0.01
done
"""


def test_energy_is_the_power_above_idle_over_the_time_of_an_inference(
    install: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power, "PATIENCE_S", 1e9)  # the clock below is not a watch
    idle, busy = "VDD_IN 4000mW/4000mW VDD_SOC 1mW/1mW", "VDD_IN 7000mW/5000mW VDD_SOC 1mW/1mW"
    flag = install(PRINT.format(folder=tmp_path, idle=idle, busy=busy))
    calls = []

    def infer() -> None:
        calls.append(1)
        flag.touch()

    monkeypatch.setattr(power, "SETTLE", 3)  # readings until the load is shown
    found = measure_energy(infer, ticking())
    assert found["lacks"] == ""
    assert found["rails"] == ["VDD_IN"]
    assert found["idle_mw"] == {"n": 30, "mean": 4000.0, "sd": 0.0, "readings": [4000.0] * 30}
    assert found["busy_mw"] == {"n": 50, "mean": 7000.0, "sd": 0.0, "readings": [7000.0] * 50}
    assert 0 < found["inferences"] < len(calls)  # those before the load was settled do not count
    assert found["per_inference_mj"] == pytest.approx(3000 * found["seconds"] / found["inferences"])
    assert (tmp_path / "called").read_text() == "--interval 100\n"
    assert describe_energy(found).endswith(
        "above idle (4000 mW at rest, 7000 mW under load, n = 50 readings of VDD_IN)"
    )


def test_without_the_program_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = measure_energy(lambda: None)
    assert found == {
        "per_inference_mj": None,
        "lacks": "tegrastats is not on the PATH; it is a part of JetPack",
    }
    assert describe_energy(found) == f"energy: not measured, {found['lacks']}"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("exit 4", "tegrastats ended with code 4"),
        ("echo RAM 613/3964MB; cat", "tegrastats shows no power rail"),
        ("exec sleep 60", "tegrastats printed nothing for 0.2 s"),
        ('for i in $(seq 45); do echo "VDD_IN 1/1"; done; exec sleep 60',
         "tegrastats printed nothing for 0.2 s"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_tell_is_named(
    code: str,
    said: str,
    install: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(power, "PATIENCE_S", 0.2)
    install(code)
    found = measure_energy(lambda: None)
    assert found["per_inference_mj"] is None
    assert found["lacks"].startswith(said)
