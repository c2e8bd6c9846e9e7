/* flux/convert/fuse.c: adapters added to the tensors of a stream.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/convert/fuse.h"

#include <stdlib.h>
#include <string.h>

#include "flux/convert/workers.h"
#include "flux/error.h"
#include "flux/transformer/merge.h"

enum { NAMED = 3 /* layers left out that are spelled out */ };

struct _FluxFuse {
  FluxWorkers *workers;
  GHashTable *modules; /* name of the tensor -> GArray of fx_lora */
};

static void
add_module (FluxFuse *self, const char *name, const fx_lora *module)
{
  GArray *modules = g_hash_table_lookup (self->modules, name);

  if (modules == NULL) {
    modules = g_array_new (FALSE, FALSE, sizeof (fx_lora));
    g_hash_table_insert (self->modules, g_strdup (name), modules);
  }
  g_array_append_val (modules, *module);
}

static const FluxTensorInfo *
find (GPtrArray *infos, const char *name)
{
  for (guint i = 0; i < infos->len; i++) {
    if (strcmp (((const FluxTensorInfo *)infos->pdata[i])->name, name) == 0)
      return infos->pdata[i];
  }
  return NULL;
}

/* Files the modules of one adapter under their tensors; what fits none is added to
 * `strangers`. */
static guint
place (FluxFuse *self, FluxLora *lora, GPtrArray *infos, GString *strangers)
{
  const FluxLoraSlot *slot;
  guint left_out = 0;

  for (guint i = 0; (slot = flux_lora_get_slot (lora, i)) != NULL; i++) {
    const fx_lora *module = flux_lora_module (lora, i);
    g_autofree char *name = g_strconcat (slot->name, ".weight", NULL);
    const FluxTensorInfo *info = module != NULL ? find (infos, name) : NULL;

    if (module == NULL)
      continue;
    if (info != NULL && flux_tensor_info_is_linear (info) && info->dims[0] == slot->n &&
        info->dims[1] == slot->k)
      add_module (self, name, module);
    else if (left_out++ < NAMED)
      g_string_append_printf (
          strangers, "%s'%s'", strangers->len > 0 ? ", " : "", slot->name);
  }
  return left_out;
}

FluxFuse *
flux_fuse_new (FluxLora *const *loras, guint n_loras, GPtrArray *infos, gboolean strict,
    char **left_out, GError **error)
{
  g_autoptr (FluxFuse) self = g_new0 (FluxFuse, 1);
  g_autoptr (GString) strangers = g_string_new (NULL);
  guint n = 0;

  *left_out = NULL;
  self->modules = g_hash_table_new_full (
      g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_array_unref);
  self->workers = flux_workers_new (error);
  if (self->workers == NULL)
    return NULL;
  for (guint i = 0; i < n_loras; i++)
    n += place (self, loras[i], infos, strangers);
  if (n == 0)
    return g_steal_pointer (&self);
  if (n > NAMED)
    g_string_append (strangers, ", ...");
  *left_out = g_strdup_printf (
      "%u layers of the adapters have no weight of their shape in the model that comes: "
      "%s",
      n, strangers->str);
  if (!strict)
    return g_steal_pointer (&self);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "%s. Set strict=false to go on without them.", *left_out);
  g_clear_pointer (left_out, g_free);
  return NULL;
}

void
flux_fuse_free (FluxFuse *self)
{
  g_clear_pointer (&self->workers, flux_workers_free);
  g_hash_table_unref (self->modules);
  g_free (self);
}

gboolean
flux_fuse_changes (FluxFuse *self, const FluxTensorInfo *info)
{
  return g_hash_table_contains (self->modules, info->name);
}

typedef struct {
  const FluxTensorInfo *info;
  const GArray *modules;
  const char *from;
  char *to;
} Job;

static int
add_to_piece (const FluxPiece *piece, gpointer data)
{
  const Job *job = data;
  const fx_dtype dtype = job->info->dtype;
  const gsize n = (gsize)piece->count, at = (gsize)piece->first * fx_dtype_size (dtype);
  const gint64 k = job->info->dims[1];

  FX_TRY (fx_convert (piece->values, FX_F32, job->from + at, dtype, n));
  FX_TRY (flux_merge_rows (piece->cpu,
      fx_mat_new (piece->values, piece->count / k, k, FX_F32), piece->first / k,
      (const fx_lora *)(gconstpointer)job->modules->data, (int)job->modules->len));
  if (!fx_all_finite (piece->values, n))
    return FLUX_PIECE_NOT_FINITE;
  return fx_convert (job->to + at, dtype, piece->values, FX_F32, n);
}

GBytes *
flux_fuse_add (
    FluxFuse *self, const FluxTensorInfo *info, gconstpointer data, GError **error)
{
  Job job = {.info = info,
      .modules = g_hash_table_lookup (self->modules, info->name),
      .from = data,
      .to = flux_workers_alloc (info->name, info->n_bytes, error)};

  if (job.to == NULL)
    return NULL;
  if (flux_workers_run (self->workers, info, add_to_piece, &job, error))
    return g_bytes_new_with_free_func (job.to, info->n_bytes, free, job.to);
  free (job.to);
  return NULL;
}
