/* tests/bench/bench-load.c: how long a model takes to load, and how much memory beside
 * its weights. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *     bench-load FOLDER DOUBLES SINGLES nf4|nf4-double|int8|none
 *
 * Writes a transformer of FLUX.1's width with so many blocks, of random bf16 weights, to
 * FOLDER unless it is there, and loads it on the CPU: from the file with an empty cache,
 * then from the cache. Prints a line each: seconds, the weights' MiB, and by how much the
 * process's anonymous memory went beyond them at its peak. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flux/files/safetensors-private.h"
#include "flux/transformer/lora.h"
#include "flux/transformer/transformer.h"
#include <glib/gstdio.h>

enum { POOL = 1 << 22 /* elements */ };

static void
check (gboolean ok, GError *error)
{
  if (ok)
    return;
  fprintf (stderr, "bench-load: %s\n", error != NULL ? error->message : "failed");
  exit (1);
}

/* ---- a model ---- */

static void
add (GArray *tensors, char *name, gint64 n, gint64 k)
{
  FluxTensorSource t = {
      .name = name, .dtype = FX_BF16, .n_dims = k > 0 ? 2 : 1, .dims = {n, k}};

  g_array_append_val (tensors, t);
}

static GArray *
list_tensors (const FluxConfig *c)
{
  GArray *tensors = g_array_new (FALSE, FALSE, sizeof (FluxTensorSource));
  guint n;
  FluxLoraSlot *slots = flux_lora_slots (c, &n);

  for (guint i = 0; i < n; i++) {
    add (tensors, g_strconcat (slots[i].name, ".weight", NULL), slots[i].n, slots[i].k);
    add (tensors, g_strconcat (slots[i].name, ".bias", NULL), slots[i].n, 0);
  }
  for (int i = 0; i < c->num_layers + c->num_single_layers; i++) {
    static const char *const norms[] = {
        "norm_q", "norm_k", "norm_added_q", "norm_added_k"};
    gboolean is_double = i < c->num_layers;

    for (int j = 0; j < (is_double ? 4 : 2); j++)
      add (tensors,
          g_strdup_printf ("%stransformer_blocks.%d.attn.%s.weight",
              is_double ? "" : "single_", is_double ? i : i - c->num_layers, norms[j]),
          c->attention_head_dim, 0);
  }
  g_free (slots);
  return tensors;
}

static void
write_weights (const char *path, const FluxConfig *c)
{
  GArray *tensors = list_tensors (c);
  g_autofree gsize *offsets = g_new (gsize, tensors->len);
  g_autofree float *x = g_new (float, POOL);
  g_autofree guint16 *pool = g_new (guint16, POOL);
  GError *error = NULL;
  GString *header = flux_safetensors_layout (
      path, (FluxTensorSource *)tensors->data, tensors->len, NULL, offsets, &error);
  FluxReplace *file;
  gsize left = 0;

  check (header != NULL, error);
  fx_philox_normal (1, 2, 3, 4, x, POOL);
  for (gsize i = 0; i < POOL; i++)
    pool[i] = fx_f32_to_bf16 (x[i] * 0.02f);
  for (guint i = 0; i < tensors->len; i++) {
    const FluxTensorSource *t = &g_array_index (tensors, FluxTensorSource, i);

    left += 2 * (gsize)t->dims[0] * (gsize)(t->n_dims == 2 ? t->dims[1] : 1);
  }
  file = flux_replace_begin (path, &error);
  check (
      file != NULL && flux_replace_write (file, header->str, header->len, &error), error);
  for (guint i = 1; left > 0; i++) {
    gsize from = (i * 7919u % 1024) * 64, n = MIN (left, (POOL - from) * sizeof *pool);

    check (flux_replace_write (file, pool + from, n, &error), error);
    left -= n;
  }
  check (flux_replace_commit (file, &error), error);
  for (guint i = 0; i < tensors->len; i++)
    g_free ((char *)g_array_index (tensors, FluxTensorSource, i).name);
  g_array_unref (tensors);
  g_string_free (header, TRUE);
}

static void
write_model (const char *dir, const FluxConfig *c)
{
  g_autofree char *config = g_build_filename (dir, "config.json", NULL);
  g_autofree char *weights =
      g_build_filename (dir, "diffusion_pytorch_model.safetensors", NULL);
  g_autofree char *json = g_strdup_printf (
      "{\"_class_name\": \"FluxTransformer2DModel\", \"in_channels\": %d, "
      "\"num_layers\": %d, \"num_single_layers\": %d, \"attention_head_dim\": %d, "
      "\"num_attention_heads\": %d, \"joint_attention_dim\": %d, "
      "\"pooled_projection_dim\": %d, \"guidance_embeds\": true, \"patch_size\": 1}",
      c->in_channels, c->num_layers, c->num_single_layers, c->attention_head_dim,
      c->num_attention_heads, c->joint_attention_dim, c->pooled_projection_dim);
  GError *error = NULL;

  if (g_file_test (weights, G_FILE_TEST_EXISTS))
    return;
  g_mkdir_with_parents (dir, 0777);
  check (flux_file_replace (config, json, strlen (json), &error), error);
  write_weights (weights, c);
}

/* ---- memory ---- */

typedef struct {
  gint stop; /* atomic */
  gsize peak;
} Watch;

static gsize
anonymous_kib (void)
{
  g_autofree char *status = NULL;
  const char *at;

  if (!g_file_get_contents ("/proc/self/status", &status, NULL, NULL) ||
      (at = strstr (status, "RssAnon:")) == NULL)
    return 0;
  return (gsize)g_ascii_strtoull (at + 8, NULL, 10);
}

static gpointer
watch_memory (gpointer data)
{
  Watch *w = data;

  while (!g_atomic_int_get (&w->stop)) {
    w->peak = MAX (w->peak, anonymous_kib ());
    g_usleep (2000);
  }
  return NULL;
}

/* ---- loading ---- */

static void
load (const char *dir, fx_qtype qtype, FluxWeightsCache *cache, const char *what)
{
  fx_backend *b = fx_cpu_new (0);
  Watch w = {0};
  GThread *thread = g_thread_new ("watch", watch_memory, &w);
  GError *error = NULL;
  gint64 start = g_get_monotonic_time ();
  FluxTransformer *t =
      flux_transformer_load (dir, b, qtype, FX_HOME_DEVICE, cache, NULL, NULL, &error);
  double seconds = (double)(g_get_monotonic_time () - start) * 1e-6;
  double resident, peak;

  check (t != NULL, error);
  g_atomic_int_set (&w.stop, TRUE);
  g_thread_join (thread);
  resident = (double)flux_transformer_get_bytes (t) / 1048576;
  peak = (double)w.peak / 1024;
  printf ("%-12s %8.2f s  weights %8.1f MiB  anonymous at most %8.1f MiB, %.1f beside "
          "them\n",
      what, seconds, resident, peak, peak - resident);
  if (cache->warning != NULL)
    printf ("warning: %s\n", cache->warning->message);
  g_clear_error (&cache->warning);
  fflush (stdout);
  flux_transformer_unref (t);
  fx_backend_free (b);
}

int
main (int argc, char **argv)
{
  g_autofree char *folder = NULL;
  FluxWeightsCache *cache;
  FluxConfig c;
  int q = FX_Q_NONE;

  if (argc == 5)
    while (q <= FX_Q_INT8 && strcmp (fx_qtype_name ((fx_qtype)q), argv[4]) != 0)
      q++;
  if (argc != 5 || q > FX_Q_INT8) {
    fprintf (
        stderr, "usage: bench-load FOLDER DOUBLES SINGLES nf4|nf4-double|int8|none\n");
    return 2;
  }
  flux_config_init_dev (&c);
  c.num_layers = atoi (argv[2]);
  c.num_single_layers = atoi (argv[3]);
  write_model (argv[1], &c);
  folder = g_build_filename (argv[1], "cache", NULL);
  cache = flux_weights_cache_new (folder);
  load (argv[1], (fx_qtype)q, cache, "first start");
  load (argv[1], (fx_qtype)q, cache, "second start");
  flux_weights_cache_free (cache);
  return 0;
}
