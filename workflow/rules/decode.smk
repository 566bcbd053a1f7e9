# Transcription by trained models: of unlabelled speech for their students, of dev and test speech for the tables.


rule pseudo_label:
    input:
        model=f"{RUN}/model.safetensors",
        tokenizer=TOKENIZER,
        settings=f"{WORK}/decoding.yaml",
        cuts=f"{CORPUS}/{{part}}/cuts.jsonl.gz",
        features=f"{CORPUS}/{{part}}/features.lca",
    output:
        f"{RUN}/pseudo_labels/{{part}}.jsonl",
    log:
        f"{RUN}/pseudo_labels/{{part}}.log",
    benchmark:
        f"{RUN}/pseudo_labels/{{part}}.tsv"
    priority: 10  # students wait for it
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=8000,
        runtime=24 * 60,
    params:
        corpus=corpus_folder,
    message:
        "Transcribe {wildcards.part} with {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill pseudo-label {input.model:q} {wildcards.part:q} {output:q} --corpus {params.corpus:q} "
        "--tokenizer {input.tokenizer:q} --settings {input.settings:q} --threads {threads} --log {log:q}"


rule decode:
    input:
        model=f"{RUN}/model.safetensors",
        tokenizer=TOKENIZER,
        settings=f"{WORK}/decoding.yaml",
        cuts=prepared("cuts.jsonl.gz", SCORED),
        features=prepared("features.lca", SCORED),
    output:
        hypotheses=f"{RUN}/hypotheses.jsonl",
        timing=f"{RUN}/decoding.json",
    log:
        f"{RUN}/decode.log",
    benchmark:
        f"{RUN}/decode.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=8000,
        runtime=24 * 60,
    params:
        corpus=corpus_folder,
        folder=run_folder,
        parts=part_options,
    message:
        "Transcribe dev and test sets with {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill decode {input.model:q} {params.folder:q} {params.parts:q} --corpus {params.corpus:q} "
        "--tokenizer {input.tokenizer:q} --settings {input.settings:q} --threads {threads} --log {log:q}"
