/* flux/files/fingerprint.c: the identity of a model's file. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/files/weights.h"

#include <string.h>

enum { SAMPLE = 4096, DIGITS = 16 };

static gint
compare_names (gconstpointer a, gconstpointer b)
{
  const FluxTensor *const *x = a, *const *y = b;

  return strcmp ((*x)->name, (*y)->name);
}

static void
hash_number (GChecksum *sum, guint64 value)
{
  guint64 little = GUINT64_TO_LE (value);

  g_checksum_update (sum, (const guchar *)&little, sizeof little);
}

static void
hash_tensor (GChecksum *sum, const FluxTensor *t)
{
  const guchar *data = t->data;
  gsize head = MIN (t->n_bytes, SAMPLE), tail = MIN (t->n_bytes - head, SAMPLE);

  g_checksum_update (sum, (const guchar *)t->name, (gssize)strlen (t->name) + 1);
  g_checksum_update (sum, (const guchar *)fx_dtype_name (t->dtype), -1);
  hash_number (sum, t->n_dims);
  for (guint i = 0; i < t->n_dims; i++)
    hash_number (sum, (guint64)t->dims[i]);
  if (head > 0)
    g_checksum_update (sum, data, (gssize)head);
  if (tail > 0)
    g_checksum_update (sum, data + t->n_bytes - tail, (gssize)tail);
}

char *
flux_safetensors_fingerprint (FluxSafetensors *file)
{
  guint n = flux_safetensors_get_n_tensors (file);
  g_autofree const FluxTensor **tensors = g_new0 (const FluxTensor *, n);
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  char *digits;

  for (guint i = 0; i < n; i++)
    tensors[i] = flux_safetensors_get_nth (file, i);
  if (n > 0)
    qsort (tensors, n, sizeof *tensors, compare_names);
  for (guint i = 0; i < n; i++)
    hash_tensor (sum, tensors[i]);
  digits = g_strndup (g_checksum_get_string (sum), DIGITS);
  g_checksum_free (sum);
  return digits;
}
