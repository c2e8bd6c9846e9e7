/* tests/flux/test-latent-cache.c: posteriors on disk, by content.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/latent-cache.h"

typedef struct {
  char *dir;
} Fixture;

static void
remove_tree (const char *path)
{
  GDir *dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *child = g_build_filename (path, name, NULL);

    remove_tree (child);
  }
  if (dir != NULL)
    g_dir_close (dir);
  g_remove (path);
}

static void
setup (Fixture *f, gconstpointer data)
{
  f->dir = g_dir_make_tmp ("flux-cache-XXXXXX", NULL);
}

static void
teardown (Fixture *f, gconstpointer data)
{
  remove_tree (f->dir);
  g_free (f->dir);
}

static const FluxLatentId id0 = {"abc", 64, 32, "0,0,64,32", "vae-1"};
enum { C = 2, H = 4, W = 8, N = 2 * C * H * W };

static GBytes *
make_moments (float first)
{
  float x[N];

  for (int i = 0; i < N; i++)
    x[i] = first + (float)i;
  return g_bytes_new (x, sizeof x);
}

static FluxLatentCache *
open_cache (const char *path, const char *fingerprint)
{
  g_autoptr (GError) error = NULL;
  FluxLatentCache *cache = flux_latent_cache_open (path, fingerprint, &error);

  g_assert_no_error (error);
  return cache;
}

static void
store (FluxLatentCache *cache, const FluxLatentId *id, float first)
{
  g_autoptr (GBytes) moments = make_moments (first);
  g_autoptr (GError) error = NULL;

  g_assert_true (flux_latent_cache_store (cache, id, moments, C, H, W, &error));
  g_assert_no_error (error);
}

/* The file in the way is named. */
static void
assert_damaged (FluxLatentCache *cache, const FluxLatentId *id, const char *path)
{
  g_autoptr (GError) error = NULL;
  int c, h, w;

  g_assert_null (flux_latent_cache_lookup (cache, id, &c, &h, &w, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
  g_assert_nonnull (strstr (error->message, path));
}

/* The first value, or -1 when it is not there. */
static float
look_up (FluxLatentCache *cache, const FluxLatentId *id)
{
  g_autoptr (GError) error = NULL;
  int c, h, w;
  g_autoptr (GBytes) found = flux_latent_cache_lookup (cache, id, &c, &h, &w, &error);
  g_autoptr (GBytes) want = NULL;
  float first;

  g_assert_no_error (error);
  if (found == NULL)
    return -1;
  g_assert_cmpint (c, ==, C);
  g_assert_cmpint (h, ==, H);
  g_assert_cmpint (w, ==, W);
  memcpy (&first, g_bytes_get_data (found, NULL), sizeof first);
  want = make_moments (first);
  g_assert_true (g_bytes_equal (found, want));
  return first;
}

static void
check_keyed (FluxLatentCache *cache)
{
  FluxLatentId other[5] = {id0, id0, id0, id0, id0};

  store (cache, &id0, 1);
  g_assert_cmpfloat (look_up (cache, &id0), ==, 1);
  other[0].key = "abd";
  other[1].width = 32;
  other[2].height = 64;
  other[3].crop = "1,0,64,32";
  other[4].fingerprint = "vae-2";
  for (guint i = 0; i < G_N_ELEMENTS (other); i++)
    g_assert_cmpfloat (look_up (cache, &other[i]), ==, -1);
  store (cache, &other[3], 7);
  g_assert_cmpfloat (look_up (cache, &id0), ==, 1);
  g_assert_cmpfloat (look_up (cache, &other[3]), ==, 7);
  store (cache, &id0, 2);
  g_assert_cmpfloat (look_up (cache, &id0), ==, 2);
}

static void
test_keyed (Fixture *f, gconstpointer data)
{
  g_autofree char *path = g_build_filename (f->dir, "a", "b", NULL);
  g_autoptr (FluxLatentCache) cache = open_cache (path, "vae-1");
  g_autoptr (FluxLatentCache) memory = open_cache (NULL, "vae-1");

  check_keyed (cache);
  check_keyed (memory);
}

static void
test_persists (Fixture *f, gconstpointer data)
{
  FluxLatentCache *cache = open_cache (f->dir, "vae-1");

  store (cache, &id0, 3);
  flux_latent_cache_free (cache);
  cache = open_cache (f->dir, "vae-1");
  g_assert_cmpfloat (look_up (cache, &id0), ==, 3);
  flux_latent_cache_free (cache);
}

/* The text of two fields must not run together. */
static void
test_fields_are_framed (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLatentCache) cache = open_cache (f->dir, "vae-1");
  FluxLatentId a = {"ab", 8, 8, "c", "vae-1"}, b = {"a", 8, 8, "bc", "vae-1"};

  store (cache, &a, 1);
  g_assert_cmpfloat (look_up (cache, &b), ==, -1);
}

static void
test_other_vae (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  FluxLatentCache *cache = open_cache (f->dir, "vae-1");

  flux_latent_cache_free (cache);
  cache = flux_latent_cache_open (f->dir, "vae-2", &error);
  g_assert_null (cache);
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_assert_nonnull (strstr (error->message, f->dir));
}

static char *
entry_file (const char *folder)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  char *path = NULL;

  while ((name = g_dir_read_name (dir)) != NULL)
    if (g_str_has_suffix (name, ".safetensors"))
      path = g_build_filename (folder, name, NULL);
  g_dir_close (dir);
  g_assert_nonnull (path);
  return path;
}

/* Cut short, a flipped bit, zeros, and rubbish: each is told, and replaced. */
static void
test_damaged (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLatentCache) cache = open_cache (f->dir, "vae-1");
  g_autofree char *path = NULL;
  g_autofree char *whole = NULL;
  gsize length;

  store (cache, &id0, 1);
  path = entry_file (f->dir);
  g_assert_true (g_file_get_contents (path, &whole, &length, NULL));
  for (int kind = 0; kind < 5; kind++) {
    g_autofree char *bad = g_memdup2 (whole, length);
    gsize n = length;

    if (kind == 0)
      n -= 4;
    else if (kind == 1)
      bad[length - 10] ^= 1;
    else if (kind == 2)
      memset (bad + length - 64, 0, 64);
    else if (kind == 3)
      memset (bad, 'x', length);
    else
      n = 0;
    g_assert_true (g_file_set_contents (path, bad, (gssize)n, NULL));
    assert_damaged (cache, &id0, path);
    store (cache, &id0, (float)kind + 2);
    g_assert_cmpfloat (look_up (cache, &id0), ==, (float)kind + 2);
  }
}

/* An entry under another's name holds that other's facts. */
static void
test_renamed_entry (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLatentCache) cache = open_cache (f->dir, "vae-1");
  FluxLatentId other = id0;
  g_autofree char *a = NULL;
  g_autofree char *b = NULL;
  g_autofree char *bytes = NULL;
  gsize length;

  store (cache, &id0, 1);
  a = entry_file (f->dir);
  g_assert_true (g_file_get_contents (a, &bytes, &length, NULL));
  g_unlink (a);
  other.key = "zzz";
  store (cache, &other, 2);
  b = entry_file (f->dir);
  g_assert_true (g_file_set_contents (b, bytes, (gssize)length, NULL));
  assert_damaged (cache, &other, b);
}

static void
test_refuses_wrong_sizes (Fixture *f, gconstpointer data)
{
  g_autoptr (FluxLatentCache) cache = open_cache (f->dir, "vae-1");
  g_autoptr (GBytes) moments = make_moments (0);
  g_autoptr (GError) error = NULL;

  g_assert_false (flux_latent_cache_store (cache, &id0, moments, C, H, W + 1, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
}

static void
test_unwritable (Fixture *f, gconstpointer data)
{
  g_autofree char *file = g_build_filename (f->dir, "file", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (file, "x", 1, NULL));
  g_assert_null (flux_latent_cache_open (file, "vae-1", &error));
  g_assert_nonnull (error);
  g_assert_nonnull (strstr (error->message, file));
  g_assert_nonnull (strstr (error->message, "name a place that can be written to"));
}

typedef struct {
  const char *dir;
  int failures;
} Writer;

static gpointer
write_many (gpointer data)
{
  Writer *w = data;
  g_autoptr (FluxLatentCache) cache = open_cache (w->dir, "vae-1");

  for (int i = 0; i < 60; i++) {
    FluxLatentId id = id0;
    g_autofree char *key = g_strdup_printf ("%d", i % 5);
    float x;

    id.key = key;
    x = look_up (cache, &id);
    if (x >= 0 && x != (float)(i % 5))
      g_atomic_int_inc (&w->failures);
    store (cache, &id, (float)(i % 5));
  }
  return NULL;
}

/* Readers see whole entries while others write the same ones; nothing is left over. */
static void
test_concurrent (Fixture *f, gconstpointer data)
{
  Writer w = {f->dir, 0};
  GThread *threads[4];
  GDir *dir;
  const char *name;
  guint entries = 0;

  for (int i = 0; i < 4; i++)
    threads[i] = g_thread_new ("writer", write_many, &w);
  for (int i = 0; i < 4; i++)
    g_thread_join (threads[i]);
  g_assert_cmpint (w.failures, ==, 0);
  dir = g_dir_open (f->dir, 0, NULL);
  while ((name = g_dir_read_name (dir)) != NULL)
    entries++;
  g_dir_close (dir);
  g_assert_cmpuint (entries, ==, 5 + 1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func) g_test_add (name, Fixture, NULL, setup, func, teardown)
  ADD ("/latent-cache/keyed-by-content-size-crop-and-vae", test_keyed);
  ADD ("/latent-cache/persists", test_persists);
  ADD ("/latent-cache/fields-are-framed", test_fields_are_framed);
  ADD ("/latent-cache/other-vae-is-refused", test_other_vae);
  ADD ("/latent-cache/damaged-entries-are-replaced", test_damaged);
  ADD ("/latent-cache/entry-under-another-name", test_renamed_entry);
  ADD ("/latent-cache/wrong-sizes-are-refused", test_refuses_wrong_sizes);
  ADD ("/latent-cache/unwritable-names-the-path", test_unwritable);
  ADD ("/latent-cache/concurrent-writers", test_concurrent);
  return g_test_run ();
}
