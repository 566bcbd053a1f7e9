# Training. Checkpoints lie in the run's folder state/, which is no output: Snakemake deletes outputs before a rerun.


rule train:
    input:
        run=f"{RUN}/run.yaml",
        tokenizer=TOKENIZER,
        overview=f"{WORK}/overview.csv",
        parts=training_parts,
        teacher=teacher_model,
        pseudo_labels=pseudo_labels,
        soft_labels=soft_labels,
    output:
        model=f"{RUN}/model.safetensors",
        curve=f"{RUN}/curve.csv",
        summary=f"{RUN}/training.json",
    log:
        f"{RUN}/train.log",
    benchmark:
        f"{RUN}/train.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=8000,
        runtime=48 * 60,
    params:
        corpus=corpus_folder,
        folder=run_folder,
        teacher=teacher_option,
        soft_labels=soft_label_option,
        pseudo_labels=pseudo_label_options,
    message:
        "Train {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill train {input.run:q} --corpus {params.corpus:q} --tokenizer {input.tokenizer:q} "
        "{params.teacher:q} {params.soft_labels:q} {params.pseudo_labels:q} --output {params.folder:q} --threads {threads} --log {log:q}"


use rule train as train_teacher with:
    wildcard_constraints:
        run=one_of(TEACHERS),
    priority: 10  # others wait for it


use rule train as train_large with:
    wildcard_constraints:
        run=one_of(AS_LARGE_AS_TEACHER),
    priority: 5  # the longest first, so that none is left for one core at the end


use rule train as train_with_decoder with:
    output:
        **rules.train.output,
        decoder=f"{RUN}/decoder.safetensors",
    wildcard_constraints:
        run=one_of(WITH_DECODER),


ruleorder: train_teacher > train_large > train_with_decoder > train
