"""Small corpora laid out as their publishers lay them out, with audio written by hand."""

import io
import tarfile

import numpy as np
import soundfile

RATE = 16000


def speech(seed, *, seconds=0.6):
    """Return 16-bit samples as quiet as speech is."""
    return np.random.default_rng(seed).normal(scale=800, size=int(RATE * seconds)).astype(np.int16)


def sphere(samples, *, big_endian=False, promised=None, **fields):
    """Return a NIST SPHERE file: 1024 bytes of text, then the samples."""
    values = {
        "sample_count -i": len(samples) if promised is None else promised,
        "sample_rate -i": RATE,
        "channel_count -i": 1,
        "sample_n_bytes -i": 2,
        "sample_byte_format -s2": "10" if big_endian else "01",
        "sample_sig_bits -i": 16,
        **fields,
    }
    lines = [f"{key} {value}" for key, value in values.items() if value is not None]
    header = "\n".join(["NIST_1A", "   1024", *lines, "end_head", ""]).encode()
    return header.ljust(1024) + samples.astype(">i2" if big_endian else "<i2").tobytes()


def raw(samples, *, big_endian):
    return samples.astype(">i2" if big_endian else "<i2").tobytes()


def write_an4(folder, *, encode=sphere, suffix=".sph"):
    """Write a corpus with the lists of AN4: three training speakers with two utterances each, one test speaker."""
    spoken = {
        "train": dict.fromkeys(("fash", "ffmm", "mgah"), ("YES", "ERASE C Q Q F")),
        "test": {"fcaw": ("RUBOUT G M E F THREE NINE",)},
    }
    (folder / "etc").mkdir(parents=True)
    for name, speakers in spoken.items():
        files, lines = [], []
        for speaker, texts in speakers.items():
            for number, text in enumerate(texts, start=251):
                key = f"an{number}-{speaker}-b"
                files.append(f"an4{'test' if name == 'test' else ''}_clstk/{speaker}/{key}")
                lines.append(f"<s> {text} </s> ({key})" if name == "train" else f"{text} ({key})")
                path = folder / "wav" / f"{files[-1]}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(speech(number)))
        (folder / "etc" / f"an4_{name}.fileids").write_text("\n".join(files) + "\n")
        (folder / "etc" / f"an4_{name}.transcription").write_text("\n".join(lines) + "\n")
    return folder


def write_speechocean(folder, *, ages=True):
    """Write a corpus in speechocean762's layout: of either half two children and three adults, two utterances each."""
    years = {"0001": 6, "0003": 15, "0100": 16, "0101": 20, "0102": 43}
    for half, digit in (("train", "0"), ("test", "9")):
        files, texts, speakers = [], [], []
        for speaker in years:
            for number in range(2):
                owner = digit + speaker[1:]
                key = f"{owner}{number:05d}"
                path = folder / "WAVE" / f"SPEAKER{owner}" / f"{key}.WAV"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, speech(number), RATE)
                files.append(f"{key}\t{path.relative_to(folder)}")
                texts.append(f"{key}\tWE CALL IT BEAR")
                speakers.append(f"{key}\t{owner}")
        (folder / half).mkdir()
        for name, lines in (("wav.scp", files), ("text", texts), ("utt2spk", speakers)):
            (folder / half / name).write_text("\n".join(lines) + "\n")
        if ages:
            told = "".join(f"{digit + speaker[1:]}\t{age}\n" for speaker, age in years.items())
            (folder / half / "spk2age").write_text(told)
    return folder


def pack(folder, archive, *, extra=()):
    """Write <folder>/ into a .tar.gz, with some more members."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
        for member in extra:
            content = b"x" if member.isfile() else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive
