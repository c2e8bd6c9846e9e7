/* flux/hub/card.h: a model card: what an adapter is, how it was trained, what it draws.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A README.md with a YAML head as the Hub reads it ("Model Cards", "Model card metadata"
 * in its documentation; widget and instance_prompt as diffusers' training scripts write
 * them), with the settings, the course of the loss as a table and a picture, and sample
 * pictures. Names of folders and files on this machine are not in it. */
#pragma once

#include "flux/report/report.h"

G_BEGIN_DECLS

enum { FLUX_CARD_MAX_PICTURES = 8 };

typedef struct _FluxCard FluxCard;

FluxCard *flux_card_new (void);
void flux_card_free (FluxCard *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxCard, flux_card_free)

/* Of each picture that is trained on: the words that all begin or end with are the
 * trigger words. */
void flux_card_add_caption (FluxCard *self, const char *caption);
void flux_card_add_step (FluxCard *self, guint64 step, double loss);
/* Over the same triples each time; the first and the last are told. */
void flux_card_add_paired_loss (FluxCard *self, guint64 step, double loss);
/* The last of each prompt is kept, of the first FLUX_CARD_MAX_PICTURES prompts. */
gboolean
flux_card_add_picture (FluxCard *self, const FluxReportPicture *picture, GError **error);
/* One that is in the repository, at path. */
void flux_card_add_file (FluxCard *self, const char *prompt, const char *path);
void flux_card_add_setting (FluxCard *self, const char *name, const char *value);

typedef struct {
  const char *repo;          /* "user/name" */
  const char *base_model;    /* "user/name", or NULL: not known */
  const char *trigger_words; /* NULL: what the captions share */
  const char *weights;       /* the adapter's name in the repository, or NULL */
} FluxCardText;

/* Adds FluxHubUpload (flux/hub/push.h) to files: README.md and what it shows. */
void flux_card_finish (FluxCard *self, const FluxCardText *text, GPtrArray *files);

/* What there is to push at source, as FluxHubUpload: an adapter's file, which becomes
 * pytorch_lora_weights.safetensors; or all files of a folder but hidden ones and
 * checkpoints. What a card can tell of them (pictures, each with its prompt in NAME.txt
 * beside it; the steps in a .jsonl file) goes into card. *weights: the adapter's name in
 * the repository, when it is the only one; g_free() it. */
gboolean flux_card_collect (
    FluxCard *self, const char *source, GPtrArray *files, char **weights, GError **error);

/* The Hub's name of a model at path (hf://..., a snapshot in the cache, or what
 * model_index.json says it was made from), or NULL; g_free() it. */
char *flux_card_base_model (const char *path);

G_END_DECLS
