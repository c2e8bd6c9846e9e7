/* tests/elements/testweights.h: streams of weights. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "tests/elements/testtrain.h"
#include "tests/flux/transformer-common.h"

static inline gchar *
child (const gchar *folder, const gchar *name)
{
  return g_build_filename (folder, name, NULL);
}

/* Runs a line to its end; FALSE: it failed, *message says how, once. */
static inline gboolean
run_line (gchar **message, const gchar *format, ...) G_GNUC_PRINTF (2, 3);

static inline gboolean
run_line (gchar **message, const gchar *format, ...)
{
  va_list args;
  gchar *line;
  TestRun run;

  va_start (args, format);
  line = g_strdup_vprintf (format, args);
  va_end (args);
  test_run_init (&run, "%s", line);
  g_free (line);
  test_run_play (&run);
  test_run_until_end (&run);
  test_run_stop (&run);
  g_assert_cmpuint (run.n_errors, <=, 1);
  *message = g_strdup (run.error);
  test_run_clear (&run);
  return *message == NULL;
}

/* Nothing is left in a folder but what is named. */
static inline void
assert_only (const gchar *folder, const gchar *name)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const gchar *entry;

  while ((entry = g_dir_read_name (dir)) != NULL)
    g_assert_cmpstr (entry, ==, name);
  g_dir_close (dir);
}

static inline void
assert_same_tensors (const gchar *a, const gchar *b)
{
  FluxSafetensors *x = flux_safetensors_open (a, NULL);
  FluxSafetensors *y = flux_safetensors_open (b, NULL);

  g_assert_nonnull (x);
  g_assert_nonnull (y);
  g_assert_cmpuint (
      flux_safetensors_get_n_tensors (x), ==, flux_safetensors_get_n_tensors (y));
  for (guint i = 0; i < flux_safetensors_get_n_tensors (x); i++) {
    const FluxTensor *t = flux_safetensors_get_nth (x, i);
    const FluxTensor *u = flux_safetensors_lookup (y, t->name);

    g_assert_nonnull (u);
    g_assert_cmpint (t->dtype, ==, u->dtype);
    g_assert_cmpmem (
        t->dims, t->n_dims * sizeof *t->dims, u->dims, u->n_dims * sizeof *u->dims);
    g_assert_cmpmem (t->data, t->n_bytes, u->data, u->n_bytes);
  }
  flux_safetensors_unref (x);
  flux_safetensors_unref (y);
}

/* The small transformer with its weights in fp32, without the tensor `without`. */
static inline void
write_fp32 (const gchar *to, const gchar *without)
{
  gchar *dir = test_small_dir (), *config = child (dir, "config.json");
  gchar *new_config = child (to, "config.json");
  gchar *path = child (to, "diffusion_pytorch_model.safetensors"), *text;
  FluxSafetensors *file = flux_safetensors_open (dir, NULL);
  GArray *sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));

  for (guint i = 0; i < flux_safetensors_get_n_tensors (file); i++) {
    const FluxTensor *t = flux_safetensors_get_nth (file, i);
    FluxTensorSource s = {.name = t->name, .dtype = FX_F32, .n_dims = t->n_dims};
    float *values = g_new (float, t->n_elements);

    memcpy (s.dims, t->dims, sizeof s.dims);
    g_assert_true (flux_tensor_to_f32 (t, values, NULL));
    s.data = values;
    if (g_strcmp0 (t->name, without) != 0)
      g_array_append_val (sources, s);
    else
      g_free (values);
  }
  g_assert_true (flux_safetensors_write (
      path, (FluxTensorSource *)(void *)sources->data, sources->len, NULL, NULL));
  g_assert_true (g_file_get_contents (config, &text, NULL, NULL));
  g_assert_true (g_file_set_contents (new_config, text, -1, NULL));
  for (guint i = 0; i < sources->len; i++)
    g_free ((gpointer)g_array_index (sources, FluxTensorSource, i).data);
  g_array_unref (sources);
  flux_safetensors_unref (file);
  g_free (text);
  g_free (path);
  g_free (new_config);
  g_free (config);
  g_free (dir);
}
