/* tests/bench/bench-load.c: how long a model takes to load, and how much memory beside
 * its weights. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *     bench-load TRANSFORMER CACHE nf4|nf4-double|int8|none
 *
 * Loads a transformer's folder (random-folder makes one) on the CPU: from the file, with
 * CACHE, which should be empty, then from the cache. Prints a line each: seconds, the
 * weights' MiB, and by how much the process's anonymous memory went beyond them at its
 * peak. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flux/transformer/transformer.h"

static void
check (gboolean ok, GError *error)
{
  if (ok)
    return;
  fprintf (stderr, "bench-load: %s\n", error != NULL ? error->message : "failed");
  exit (1);
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
  FluxWeightsCache *cache;
  int q = FX_Q_NONE;

  if (argc == 4)
    while (q <= FX_Q_INT8 && strcmp (fx_qtype_name ((fx_qtype)q), argv[3]) != 0)
      q++;
  if (argc != 4 || q > FX_Q_INT8) {
    fprintf (stderr, "usage: bench-load TRANSFORMER CACHE nf4|nf4-double|int8|none\n");
    return 2;
  }
  if ((cache = flux_weights_cache_new (argv[2])) == NULL) {
    fprintf (stderr, "bench-load: CACHE is a folder\n");
    return 2;
  }
  load (argv[1], (fx_qtype)q, cache, "first start");
  load (argv[1], (fx_qtype)q, cache, "second start");
  flux_weights_cache_free (cache);
  return 0;
}
