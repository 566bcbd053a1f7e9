# Tokens.


rule tokenizer:
    input:
        record=f"{WORK}/{{tokens}}.yaml",
        references=prepared("references.jsonl", LABELLED),
    output:
        f"{WORK}/{{tokens}}.model",
    log:
        f"{WORK}/{{tokens}}.log",
    benchmark:
        f"{WORK}/{{tokens}}.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    message:
        "Estimate the word pieces"
    shell:
        "asr-distill tokenizer {input.record:q} {input.references:q} --output {output:q} --log {log:q}"


rule text:
    input:
        record=f"{WORK}/language_models.yaml",
        scored=prepared("references.jsonl", SCORED),
        labelled=prepared("references.jsonl", LABELLED),
        files=language_model_text_files,
    output:
        text=f"{LANGUAGE_MODELS}/text.txt",
        counts=f"{LANGUAGE_MODELS}/text.json",
    log:
        f"{LANGUAGE_MODELS}/text.log",
    benchmark:
        f"{LANGUAGE_MODELS}/text.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(16000),
        runtime=growing(120),
    params:
        labelled=expand(
            "--labelled={path}", path=prepared("references.jsonl", LABELLED)
        ),
    message:
        "Prepare the text of the language models"
    shell:
        "asr-distill text {input.record:q} {input.scored:q} {params.labelled:q} --output {output.text:q} "
        "--counts {output.counts:q} --log {log:q}"


rule bert:
    input:
        record=f"{WORK}/language_models.yaml",
        text=f"{LANGUAGE_MODELS}/text.txt",
        tokenizer=CTC_TOKENIZER,
    output:
        model=f"{BERT}/model.safetensors",
        config=f"{BERT}/config.json",
        about=f"{BERT}/bert.json",
        curve=f"{BERT}/curve.csv",
    log:
        f"{LANGUAGE_MODELS}/bert.log",
    benchmark:
        f"{LANGUAGE_MODELS}/bert.tsv"
    priority: 10  # runs wait for its soft labels
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(16000),
        runtime=growing(24 * 60),
    params:
        folder=bert_folder,
    message:
        "Train BERT"
    shell:
        "asr-distill bert {input.record:q} {input.text:q} --tokenizer {input.tokenizer:q} --output {params.folder:q} "
        "--threads {threads} --log {log:q}"


rule soft_labels:
    input:
        bert=rules.bert.output,
        references=prepared("references.jsonl", LABELLED),
        tokenizer=CTC_TOKENIZER,
    output:
        f"{LANGUAGE_MODELS}/soft_labels/{{mask}}{{hidden_states}}.safetensors",
    log:
        f"{LANGUAGE_MODELS}/soft_labels/{{mask}}{{hidden_states}}.log",
    benchmark:
        f"{LANGUAGE_MODELS}/soft_labels/{{mask}}{{hidden_states}}.tsv"
    wildcard_constraints:
        hidden_states="|_hidden_states",  # they take most of the space, and few runs learn them
    priority: 10
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(16000),
        runtime=growing(12 * 60),
    params:
        folder=bert_folder,
        top_k=soft_label_top_k,
        hidden_states=hidden_states_option,
    message:
        "Ask BERT for every {wildcards.mask} of the transcripts"
    shell:
        "asr-distill soft-labels {params.folder:q} {input.references:q} --mask {wildcards.mask} --top-k {params.top_k} "
        "{params.hidden_states} --tokenizer {input.tokenizer:q} --output {output:q} --threads {threads} --log {log:q}"


rule ngram:
    input:
        record=f"{WORK}/language_models.yaml",
        text=f"{LANGUAGE_MODELS}/text.txt",
        tokenizer=CTC_TOKENIZER,
    output:
        NGRAM,
    log:
        f"{LANGUAGE_MODELS}/ngram.log",
    benchmark:
        f"{LANGUAGE_MODELS}/ngram.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(16000),
        runtime=growing(240),
    message:
        "Estimate the n-gram"
    shell:
        "asr-distill ngram {input.record:q} {input.text:q} --tokenizer {input.tokenizer:q} --output {output:q} "
        "--log {log:q}"
