/* tests/flux/lora-file.h: adapter files made by tests. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "transformer-common.h"

/* A file being made: names and shapes in the order of adding, all values `value`. */
typedef struct {
  GArray *sources; /* FluxTensorSource */
  GPtrArray *owned;
  char *metadata;
} File;

static inline void
file_init (File *f)
{
  f->sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));
  f->owned = g_ptr_array_new_with_free_func (g_free);
  f->metadata = NULL;
}

static inline void
file_add (File *f, const char *name, gint64 rows, gint64 cols, float value)
{
  gsize n = (gsize)(rows * MAX (cols, 1));
  float *values = g_new (float, n);
  FluxTensorSource s = {.name = g_strdup (name),
      .dtype = FX_F32,
      .n_dims = cols > 0 ? 2 : 1,
      .dims = {rows, cols},
      .data = values};

  for (gsize i = 0; i < n; i++)
    values[i] = value * (float)(1 + i % 7);
  g_ptr_array_add (f->owned, (gpointer)s.name);
  g_ptr_array_add (f->owned, values);
  g_array_append_val (f->sources, s);
}

/* The two halves of a module. */
static inline void
file_add_module (File *f, const char *name, gint64 n, gint64 k, int rank)
{
  g_autofree char *a = g_strconcat (name, ".lora_A.weight", NULL);
  g_autofree char *b = g_strconcat (name, ".lora_B.weight", NULL);

  file_add (f, a, rank, k, 0.01f);
  file_add (f, b, n, rank, 0.02f);
}

static inline char *
file_write (File *f)
{
  const char *entries[] = {"format", "pt",
      f->metadata != NULL ? "lora_adapter_metadata" : NULL, f->metadata, NULL};
  g_autoptr (GError) error = NULL;
  char *path;
  int fd = g_file_open_tmp ("flux-XXXXXX.safetensors", &path, &error);

  g_assert_no_error (error);
  g_assert_true (g_close (fd, NULL));
  flux_safetensors_write (path, (FluxTensorSource *)(void *)f->sources->data,
      f->sources->len, entries, &error);
  g_assert_no_error (error);
  return path;
}

static inline void
file_clear (File *f)
{
  g_array_unref (f->sources);
  g_ptr_array_unref (f->owned);
  g_free (f->metadata);
}
