# Our losses and training steps beside other toolkits', measured: `snakemake --cores all benchmarks`, no default target.


rule benchmarks:
    output:
        lattice=multiext(f"{BENCHMARKS}/lattice", ".csv", ".md"),
        sweep=multiext(f"{BENCHMARKS}/sweep", ".csv", ".svg", ".png"),
        training_step=multiext(f"{BENCHMARKS}/training_step", ".csv", ".md"),
        data_parallel=multiext(f"{BENCHMARKS}/data_parallel", ".csv", ".md"),
        provenance=f"{BENCHMARKS}/provenance.json",
    log:
        f"{experiment.config.work}/benchmarks.log",
    conda:
        "../../envs/asr-distill.yaml"
    threads: 1024  # all cores there are, so that nothing runs beside it
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(16000),
        runtime=growing(120),
    params:
        folder=benchmarks_folder,
    message:
        "Measure losses and training steps beside other toolkits'"
    shell:
        "python -m benchmarks --output {params.folder:q} --threads {threads} --log {log:q}"
