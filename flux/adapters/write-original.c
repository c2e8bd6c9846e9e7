/* flux/adapters/write-original.c: adapters under the original model's names, as kohya and
 * ComfyUI have them. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * PREFIX.NAME.lora_down.weight [r, k], .lora_up.weight [n, r], .alpha; kohya writes
 * underscores for the dots of NAME. Modules of q, k and v become one of the fused layer:
 * their A one under the other, their B in the diagonal of its B, as kohya-ss/sd-scripts
 * networks/convert_flux_lora.py does it. */
#include "flux/adapters/write-original.h"

#include <string.h>

#include "flux/adapters/names.h"
#include "flux/files/safetensors.h"
#include "flux/transformer/lora-private.h"

typedef struct {
  FluxLora *lora;
  const float *values;
  gboolean kohya;
  FluxAdapterNames *names;
  gsize *a, *b;     /* [n_slots] offsets of the halves */
  GArray *sources;  /* FluxTensorSource */
  GPtrArray *owned; /* their names and values */
} Writer;

static void
add (Writer *w, const char *layer, const char *end, guint n_dims, gint64 rows,
    gint64 cols, float *values)
{
  char *name = g_strconcat (layer, end, NULL);
  FluxTensorSource source = {.name = name,
      .dtype = FX_F32,
      .n_dims = n_dims,
      .dims = {rows, cols},
      .data = values};

  g_ptr_array_add (w->owned, name);
  g_ptr_array_add (w->owned, values);
  g_array_append_val (w->sources, source);
}

static char *
name_of (const Writer *w, const char *original)
{
  char *name = g_strconcat (w->kohya ? "lora_unet_" : "diffusion_model.", original, NULL);

  return w->kohya ? g_strdelimit (name, ".", '_') : name;
}

/* B of a slot into its block of up [.., rank]. */
static void
place_up (const Writer *w, const FluxAdapterModule *m, guint slot, float factor,
    float *up, int rank)
{
  const gint64 n = w->lora->slots[slot].n;
  const int r = w->lora->modules[slot].rank;
  const float *b = w->values + w->b[slot];

  for (gint64 i = 0; i < n; i++) {
    const gint64 row = m->swapped ? (i + n / 2) % n : i;

    for (int j = 0; j < r; j++)
      up[row * rank + j] = b[i * r + j] * factor;
  }
}

static void
add_module (Writer *w, const FluxAdapterModule *m, const char *original)
{
  const FluxLora *lora = w->lora;
  const gint64 k = lora->slots[m->slots[0]].k;
  g_autofree char *name = name_of (w, original);
  gint64 n = 0, row = 0;
  int rank = 0, column = 0;
  float *down, *up, *alpha = g_new (float, 1), scale = 0;

  for (guint i = 0; i < m->n_slots; i++) {
    const guint slot = m->slots[i];

    n += lora->slots[slot].n;
    rank += lora->modules[slot].rank;
    if (scale == 0 && lora->modules[slot].rank > 0)
      scale = lora->alphas[slot] / (float)lora->modules[slot].rank;
  }
  down = g_new (float, (gsize)rank *(gsize)k);
  up = g_new0 (float, (gsize)rank *(gsize)n);
  for (guint i = 0; i < m->n_slots; i++) {
    const guint slot = m->slots[i];
    const int r = lora->modules[slot].rank;

    if (r > 0) {
      const float own = lora->alphas[slot] / (float)r;

      memcpy (down + column * k, w->values + w->a[slot], sizeof (float) * (gsize)(r * k));
      place_up (
          w, m, slot, own == scale ? 1 : own / scale, up + row * rank + column, rank);
    }
    column += r;
    row += lora->slots[slot].n;
  }
  *alpha = scale * (float)rank;
  add (w, name, ".lora_down.weight", 2, rank, k, down);
  add (w, name, ".lora_up.weight", 2, n, rank, up);
  add (w, name, ".alpha", 0, 0, 0, alpha);
}

static void
add_all (Writer *w)
{
  g_autofree gboolean *done = g_new0 (gboolean, MAX (w->lora->n_slots, 1));

  for (guint i = 0; i < w->lora->n_tensors; i++) {
    const FluxLoraTensor *t = &w->lora->tensors[i];

    (t->is_b ? w->b : w->a)[t->slot] = t->offset;
  }
  for (guint slot = 0; slot < w->lora->n_slots; slot++) {
    const FluxAdapterModule *m;
    const char *original;

    if (w->lora->modules[slot].rank == 0 || done[slot])
      continue;
    m = flux_adapter_names_original (w->names, slot, &original);
    add_module (w, m, original);
    for (guint i = 0; i < m->n_slots; i++)
      done[m->slots[i]] = TRUE;
  }
}

gboolean
flux_lora_write_original (
    FluxLora *self, const char *path, const float *values, gboolean kohya, GError **error)
{
  const char *kohya_metadata[] = {
      "format", "pt", "ss_network_module", "networks.lora_flux", NULL};
  const char *metadata[] = {"format", "pt", NULL};
  Writer w = {.lora = self, .values = values, .kohya = kohya};
  gboolean ok;

  w.names = flux_adapter_names_new (&self->config);
  w.a = g_new0 (gsize, MAX (self->n_slots, 1));
  w.b = g_new0 (gsize, MAX (self->n_slots, 1));
  w.sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));
  w.owned = g_ptr_array_new_with_free_func (g_free);
  add_all (&w);
  ok = flux_safetensors_write (path, (FluxTensorSource *)(void *)w.sources->data,
      w.sources->len, kohya ? kohya_metadata : metadata, error);
  g_array_unref (w.sources);
  g_ptr_array_unref (w.owned);
  flux_adapter_names_free (w.names);
  g_free (w.a);
  g_free (w.b);
  return ok;
}
