# Knowledge distillation for speech recognition, from corpora to the papers' tables. Rules are in workflow/rules/,
# what is compared and how big in config/.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


container: "envs/asr-distill.sif"  # for --sdm apptainer


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        results("core"),


rule complete:
    input:
        results("complete"),


for table in SELECTIONS:
    if table not in ("core", "complete"):

        rule:
            name:
                table
            input:
                results(table),


include: "workflow/rules/corpus.smk"
include: "workflow/rules/text.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/decode.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/benchmarks.smk"
