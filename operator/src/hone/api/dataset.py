"""The data of a FineTuneJob: where its rows are, how they are read, and how they are split."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import MAX_INT32, Model
from hone.contract.objects import ClaimPath, ColumnName, Columns, ConfigMapKey, LocalReference
from hone.contract.settings import (
    MAX_BAD_ROWS,
    Balance,
    ChatTemplateName,
    DataFormat,
    OnScarceData,
    Reasoning,
    Role,
    SplitBy,
    TrainOn,
)
from hone.contract.stores import PORT, S3Store

Roles = dict[ColumnName, Role]

DATA_URI = (
    r"^(hf://datasets/[A-Za-z0-9][-A-Za-z0-9._]*(/[A-Za-z0-9][-A-Za-z0-9._]*)?"
    r"|s3://[a-z0-9][-a-z0-9.]*(/[^\x00-\x1f\x7f\\]*)?"
    rf"|https://[A-Za-z0-9][-A-Za-z0-9.]*(:{PORT})?/[!-~]*)$"
)
"""Where rows may come from."""
REVISION = r"^[A-Za-z0-9][-A-Za-z0-9._/]*$"
PART_OF_A_DATA_SET = r"^[A-Za-z0-9_][-A-Za-z0-9_.]*$"

_ROWS_ON_A_CLAIM = (
    "Rows on a PersistentVolumeClaim: a file (JSON Lines, JSON array, CSV, TSV or Parquet; text files may be "
    "compressed as .gz or .zst), a directory of such files, a glob such as data/*.jsonl, or a directory written by "
    "Dataset.save_to_disk."
)
_ROWS_IN_A_CONFIG_MAP = (
    "Rows in a ConfigMap: one key with a file of any of the types that claim supports, at most 1 MiB."
)
_ROWS_IN_AN_IMAGE = "Rows in an OCI image that the kubelet mounts: a file, directory or glob as in claim."
IMAGE_REFERENCE = (
    rf"^[A-Za-z0-9][-A-Za-z0-9.]*(:{PORT})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][-A-Za-z0-9._]{{0,127}})?"
    r"(@[A-Za-z0-9]+:[A-Za-z0-9]*)?$"
)
"""The name of an image. A rule requires the digest, since a pattern cannot say what to do."""


class ImagePath(Model):
    """A file or directory in an OCI image that the kubelet pulls and mounts read-only, as an image volume."""

    reference: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            pattern=IMAGE_REFERENCE,
            description="The image with its digest, such as registry.example.com/team/model@sha256:…. The kubelet "
            "pulls it with compute.pod.imagePullSecrets, or without any with those of the namespace's default service "
            "account. The nodes need Kubernetes 1.35 (or 1.33 with the feature gate ImageVolume) and containerd 2.1 or "
            "CRI-O 1.31.",
        ),
    ]
    path: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            pattern=r"^[^/].*$",
            description="Path inside the image, without a leading slash. Default: its root.",
        ),
    ] = None


class RemoteRows(Model):
    """Rows that the prepare pod downloads: where they are, which of them, and with which credentials."""

    uri: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            pattern=DATA_URI,
            description="Rows that the prepare pod downloads to the workspace, once for all jobs that share it. "
            "hf://datasets/organization/name: a data set of the Hugging Face Hub with Parquet, JSON Lines, JSON, CSV, "
            "TSV or Arrow files; loading scripts are not run. s3://bucket/key: an object, the objects directly below a "
            "prefix that ends with /, or those that a glob such as data/**/*.jsonl matches. https://host/path: a file, "
            "with sha256. Files are of the types that claim supports.",
        ),
    ] = None
    revision: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=REVISION,
            description="Branch, tag or commit of the data set. Default: its default branch. The job uses the commit "
            "that this names when it is prepared. Allowed only with hf://.",
        ),
    ] = None
    config: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=PART_OF_A_DATA_SET,
            description="Configuration of the data set, also called subset. Default: its default or only one. Allowed "
            "only with hf://.",
        ),
    ] = None
    split: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=PART_OF_A_DATA_SET,
            description="Split of the data set. Default: train, validation or test, as the field that this is a part "
            "of. Allowed only with hf://.",
        ),
    ] = None
    sha256: Annotated[
        str | None,
        Field(
            min_length=64,
            max_length=64,
            pattern=r"^[0-9a-f]{64}$",
            description="SHA-256 of the file, as sha256sum prints it. Required with https://, and allowed only with "
            "it.",
        ),
    ] = None
    s3: Annotated[S3Store | None, Field(description="The store. Allowed only with s3://. Default: Amazon S3.")] = None
    credentials_secret_ref: Annotated[
        LocalReference | None,
        Field(
            description="Secret with credentials. hf://: key HF_TOKEN has an access token. s3://: keys "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN. Only the prepare pod "
            "gets them. Not with https://."
        ),
    ] = None


class MixedSource(RemoteRows):
    """One of several sources of training rows: one of claim, configMap, uri and image, and how its rows are read."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            description="Name of the source in status and in errors.",
        ),
    ]
    claim: Annotated[ClaimPath | None, Field(description=_ROWS_ON_A_CLAIM)] = None
    config_map: Annotated[ConfigMapKey | None, Field(description=_ROWS_IN_A_CONFIG_MAP)] = None
    image: Annotated[ImagePath | None, Field(description=_ROWS_IN_AN_IMAGE)] = None
    format: Annotated[
        DataFormat | None, Field(description="Format of its rows. Default: dataset.format; Auto detects it on its own.")
    ] = None
    columns: Annotated[Columns | None, Field(max_length=16, description="Instead of dataset.columns.")] = None
    roles: Annotated[Roles | None, Field(max_length=16, description="Instead of dataset.roles.")] = None
    weight: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="How often a training row of this source is used in one epoch. 2: each row twice. 0.5: half of "
            "the rows, selected by a hash.",
        ),
    ] = 1.0
    max_rows: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_INT32,
            description="Maximum number of rows of this source, held-out rows included, selected by a hash. Default: "
            "all rows.",
        ),
    ] = None


class DataSource(RemoteRows):
    """Where training rows are read from: exactly one of claim, configMap, uri, image and sources."""

    claim: Annotated[ClaimPath | None, Field(description=_ROWS_ON_A_CLAIM)] = None
    config_map: Annotated[ConfigMapKey | None, Field(description=_ROWS_IN_A_CONFIG_MAP)] = None
    image: Annotated[ImagePath | None, Field(description=_ROWS_IN_AN_IMAGE)] = None
    sources: Annotated[
        list[MixedSource] | None,
        Field(
            min_length=1,
            max_length=16,
            description="Several sources, whose rows are mixed.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None


class ChatTemplate(Model):
    """A chat template that is used instead of the model's own: exactly one of name and configMap."""

    name: Annotated[
        ChatTemplateName | None,
        Field(
            description="A template that Hone has. ChatML: <|im_start|> and the role before each message, <|im_end|> "
            "after it; with a tokenizer that has no token <|im_end|>, its end-of-text token ends a message."
        ),
    ] = None
    config_map: Annotated[
        ConfigMapKey | None, Field(description="A Jinja template in a ConfigMap, as in chat_template.jinja.")
    ] = None


class HeldOut(RemoteRows):
    """Rows that are not trained on: exactly one of claim, configMap, uri, image and fraction."""

    claim: Annotated[ClaimPath | None, Field(description=_ROWS_ON_A_CLAIM)] = None
    config_map: Annotated[ConfigMapKey | None, Field(description=_ROWS_IN_A_CONFIG_MAP)] = None
    image: Annotated[ImagePath | None, Field(description=_ROWS_IN_AN_IMAGE)] = None
    fraction: Annotated[
        float | None,
        Field(ge=0, le=0.5, description="Fraction of the training rows to hold out, selected by a hash of the prompt."),
    ] = None


class Dataset(Model):
    """The rows to learn from, and how to read them."""

    train: Annotated[DataSource, Field(description="Training rows.")]
    validation: Annotated[
        HeldOut | None,
        Field(
            description="Validation rows, on which the loss is evaluated during training. {on_policy_listed} do not "
            "use them: set fraction to 0 to train on these rows as well. Default: 10 % of the training rows."
        ),
    ] = None
    test: Annotated[
        HeldOut | None,
        Field(
            description="Test rows, on which base model and tuned model are scored at the end. A fraction must be "
            "above 0. Default: 10 % of the training rows."
        ),
    ] = None
    format: Annotated[
        DataFormat,
        Field(
            description="Format of the rows. Auto detects it by the columns: Messages for 'messages', PromptCompletion "
            "for 'prompt' and 'completion', TextLabel for 'text' and 'label' ({TextLabel}), Preference for 'chosen' "
            "and 'rejected', with the prompt in 'prompt' or as their common beginning ({Preference}), "
            "UnpairedPreference for 'prompt', 'completion' and a boolean 'label' ({UnpairedPreference}), ShareGPT for "
            "'conversations', Alpaca for 'instruction' and 'output', Prompt for 'prompt' with or without 'reference' "
            "({Prompt}), Text for 'text' without 'label' ({Text})."
        ),
    ] = DataFormat.AUTO
    columns: Annotated[
        Columns | None,
        Field(
            max_length=16,
            description="Column names in the data that differ from Hone's, by Hone's name. For example, prompt: "
            "question reads the prompt from the column question, and prompt: data.question from the key question of "
            "the object data. role and content name the keys of messages. label: late,rude makes a class of each of "
            "these columns, which have 0 or 1.",
        ),
    ] = None
    roles: Annotated[
        Roles | None,
        Field(
            max_length=16,
            description="Roles by the names that messages in the data have for them. For example, customer: user reads "
            "messages of the role, or from the sender, customer as messages of the user.",
        ),
    ] = None
    train_on: Annotated[
        TrainOn | None,
        Field(
            description="{marks_tokens}: tokens on which the loss is computed. Assistant: the assistant's messages of "
            "a conversation. Completion: the completion, or the last answer of a conversation. All: all tokens. "
            "Default: Assistant for Messages, ShareGPT and Alpaca, Completion for PromptCompletion."
        ),
    ] = None
    balance: Annotated[
        Balance | None,
        Field(
            description="{balances}: Weight gives the rows of rare classes more weight in the loss; None gives all "
            "rows the same weight. Classification: the weight is n / (k * n_c) with n rows, k classes and n_c rows of "
            "the class; if rows may have several classes, rows of a class weigh (n - n_c) / n_c in the loss of that "
            "class, from 1 to 20. KTO: the good rows together get 1 to 4/3 times the weight of the bad rows. Default: "
            "Weight for Classification if the largest class has more than 3 times the rows of the smallest one, and "
            "for KTO if the number of good rows is not 1 to 4/3 times that of bad rows; None in all other cases. "
            "Oversample repeats training rows of rare classes, or, for other objectives, of rare groups of "
            "evaluation.groupBy, in each epoch until they are as many as those of the largest, at most 10 times."
        ),
    ] = None
    show_example: Annotated[
        bool,
        Field(
            description="Whether status.dataset.example shows a training row. Everyone who may read the job can read "
            "it there. status.dataset.exampleOutline shows the parts and lengths of the row in any case, and the "
            "report next to the artifact contains it."
        ),
    ] = False
    chat_template: Annotated[
        ChatTemplate | None,
        Field(
            description="Chat template for training, instead of the model's own. The artifact has it and is served "
            "with it. Not with objective {no_chats}."
        ),
    ] = None
    system_prompt: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=16384,
            description="System message of the conversations that have none. Send the same message to the server. Not "
            "with rows whose prompt is a string, and not with objective {no_chats}.",
        ),
    ] = None
    reasoning: Annotated[
        Reasoning,
        Field(
            description="What is done with the reasoning of answers: <think>…</think> at their beginning, and "
            "reasoning_content of messages. Keep: it is learned; rows whose reasoning the chat template does not show "
            "are bad rows. Drop: it is removed from all messages."
        ),
    ] = Reasoning.KEEP
    split_by: Annotated[
        SplitBy | None,
        Field(
            description="What decides which training rows are held out; rows that agree in it are in the same split. "
            "Prompt: everything before the answer. FirstTurn: a conversation up to the user's first message. Row: the "
            "whole row. Column: the column group (see columns), such as a user or a document. Default: Prompt, or Row "
            "if most rows have the same prompt."
        ),
    ] = None
    max_bad_rows: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Largest fraction of rows that may be left out because they cannot be used. With more, the job "
            "fails before training.",
        ),
    ] = MAX_BAD_ROWS
    min_samples: Annotated[
        int, Field(ge=1, le=1_000_000_000, description="Number of training rows below which onScarceData applies.")
    ] = 500
    on_scarce_data: Annotated[
        OnScarceData,
        Field(
            description="What to do with fewer training rows than minSamples: Warn continues with a warning in "
            "status.plan, Fail ends the job before training."
        ),
    ] = OnScarceData.WARN
