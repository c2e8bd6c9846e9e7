/* flux/convert/folder.h: writing a model folder as its tensors come.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The layout of diffusers' save_pretrained(): config.json beside
 * diffusion_pytorch_model.safetensors, or beside numbered shards and their index. All
 * tensors are known before the first comes, so that every file has its header and its
 * size (a full disk is an error before anything is computed); then each is written to its
 * place, in any order, and forgotten.
 *
 * Everything is in a temporary folder beside `location`, which takes that name when all
 * is on disk: there is never half a model under its name. */
#pragma once

#include "flux/convert/tensor-info.h"

G_BEGIN_DECLS

typedef enum {
  FLUX_PARTS_NONE, /* location is the transformer's folder */
  FLUX_PARTS_LINK, /* location is a model's folder; what else is in the source's is linked
                      to it */
  FLUX_PARTS_COPY  /* the same, copied */
} FluxParts;

typedef struct {
  const char *location;
  guint64 max_shard_size; /* bytes of tensors a file; a larger tensor has its own */
  FluxParts parts;
  const char *source; /* the folder that the transformer came from; may be NULL for
                         FLUX_PARTS_NONE */
} FluxFolderOptions;

typedef struct _FluxFolder FluxFolder;

/* Can a folder of this name be written? It must not be there, or be empty; its parents
 * are made. */
gboolean flux_folder_check (const char *location, GError **error);
/* infos: FluxTensorInfo of all tensors, in the order in which they will fill the shards.
 */
FluxFolder *
flux_folder_new (const FluxFolderOptions *options, GPtrArray *infos, GError **error);
gboolean flux_folder_put (FluxFolder *self, const char *name, gconstpointer data,
    gsize n_bytes, GError **error);
/* With config.json; an error unless every tensor has come. Frees self in every case. */
gboolean flux_folder_commit (FluxFolder *self, const char *config, GError **error);
/* Removes what was written and frees self. */
void flux_folder_abort (FluxFolder *self);

G_END_DECLS
