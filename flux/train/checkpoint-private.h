/* flux/train/checkpoint-private.h: folders of checkpoints, and the state file in one.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "flux/train/trainer-private.h"

G_BEGIN_DECLS

#define FLUX_CHECKPOINT_STATE "state.safetensors"

/* Writes, and checks against the trainer and reads, the state file. The caller holds the
 * model's lock. */
gboolean flux_state_save (FluxTrainer *self, const char *path, GError **error);
gboolean
flux_state_load (FluxTrainer *self, const char *path, FluxLora *adapter, GError **error);

/* A new, empty folder beside the checkpoints that no reader takes for one. */
char *flux_checkpoint_begin (const char *folder, guint64 step, GError **error);
/* Gives it its name; replaces a checkpoint of the same step. Returns the path. */
char *flux_checkpoint_commit (
    const char *folder, const char *temporary, guint64 step, GError **error);
/* Removes our files in path, then path when nothing else is in it. */
void flux_checkpoint_remove (const char *path);
/* Whole checkpoints in folder as guint64 steps, ascending. */
GArray *flux_checkpoint_list (const char *folder);
char *flux_checkpoint_path (const char *folder, guint64 step);
/* path itself when it is a checkpoint, else the latest in it. */
char *flux_checkpoint_find (const char *path, GError **error);

G_END_DECLS
