/* tests/flux/test-mutations.c: damaged files are refused or read, never worse. The same
 * damage every time. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * consume.h asserts that a failing call says why and names the file, and touches every
 * byte that a successful one returns. */
#include "tests/fuzz/consume.h"

typedef gboolean (*Consume) (const void *bytes, gsize length);

static gboolean
use_parquet (const void *bytes, gsize length)
{
  return consume_parquet (bytes, length, 10);
}

/* SplitMix64. */
static guint64
next_random (guint64 *state)
{
  guint64 z = *state += 0x9e3779b97f4a7c15u;

  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static char *
read_data (const char *a, const char *b, const char *name, gsize *length)
{
  g_autofree char *path = g_build_filename (g_getenv ("FLUX_TEST_SRC"), a, b, name, NULL);
  char *bytes = NULL;

  if (!g_file_get_contents (path, &bytes, length, NULL))
    g_error ("%s is missing", path);
  return bytes;
}

/* At every length the file is refused: both formats know where they end. */
static void
truncate_everywhere (Consume use, const char *bytes, gsize length)
{
  g_assert_true (use (bytes, length));
  for (gsize n = 0; n < length; n++)
    g_assert_false (use (bytes, n));
}

/* `times` copies with one to four bytes changed, in turn by a bit, to anything, to an
 * extreme. Returns how many were still taken. */
static guint
flip (Consume use, const char *bytes, gsize length, guint times)
{
  static const guint8 extremes[] = {0x00, 0x01, 0x7f, 0x80, 0xff, '"', '{', '9'};
  g_autofree guint8 *copy = g_malloc (length);
  guint64 state = length;
  guint taken = 0;

  for (guint i = 0; i < times; i++) {
    guint n = 1 + i % 4;

    memcpy (copy, bytes, length);
    for (guint j = 0; j < n; j++) {
      guint64 r = next_random (&state);
      guint8 *at = &copy[r % length];

      r >>= 40;
      if (i % 3 == 0)
        *at ^= (guint8)(1u << r % 8);
      else if (i % 3 == 1)
        *at = (guint8)r;
      else
        *at = extremes[r % G_N_ELEMENTS (extremes)];
    }
    taken += use (copy, length);
  }
  return taken;
}

static void
test_cut_parquet (void)
{
  static const char *const names[] = {"required.parquet", "pandas.parquet"};

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    gsize length;
    g_autofree char *bytes = read_data ("data", "parquet", names[i], &length);

    truncate_everywhere (use_parquet, bytes, length);
  }
}

static void
test_damaged_parquet (void)
{
  static const char *const names[] = {"required.parquet", "pandas.parquet",
      "table-old-split.parquet", "table-v1-none-dict.parquet",
      "table-v2-none-plain.parquet", "table-v1-snappy-dict.parquet",
      "table-v2-gzip-plain.parquet", "table-duckdb-snappy.parquet"};
  guint taken = 0;

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    gsize length;
    g_autofree char *bytes = read_data ("data", "parquet", names[i], &length);

    taken += flip (use_parquet, bytes, length, 600);
  }
  /* Damage to values and statistics is no damage to the form. */
  g_assert_cmpuint (taken, >, 0);
  g_assert_cmpuint (taken, <, 600 * G_N_ELEMENTS (names));
}

static void
test_cut_safetensors (void)
{
  static const char *const names[] = {"types.safetensors", "shapes.safetensors"};

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    gsize length;
    g_autofree char *bytes = read_data ("fuzz", "seeds-safetensors", names[i], &length);

    truncate_everywhere (consume_safetensors, bytes, length);
  }
}

static void
test_damaged_safetensors (void)
{
  static const char *const names[] = {"types.safetensors", "shapes.safetensors"};
  guint taken = 0;

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    gsize length;
    g_autofree char *bytes = read_data ("fuzz", "seeds-safetensors", names[i], &length);

    taken += flip (consume_safetensors, bytes, length, 6000);
  }
  g_assert_cmpuint (taken, >, 0);
  g_assert_cmpuint (taken, <, 6000 * G_N_ELEMENTS (names));
}

static void
test_damaged_index (void)
{
  gsize length;
  g_autofree char *bytes = read_data ("fuzz", "seeds-safetensors", "index.json", &length);
  guint taken;

  g_assert_true (consume_index (bytes, length));
  /* The last byte is the newline. */
  for (gsize n = 0; n < length - 1; n++)
    g_assert_false (consume_index (bytes, n));
  taken = flip (consume_index, bytes, length, 6000);
  g_assert_cmpuint (taken, >, 0);
  g_assert_cmpuint (taken, <, 6000);
}

/* Whatever a fuzzer was started from or has found. */
static void
use_folder (const char *folder, Consume use)
{
  g_autofree char *path =
      g_build_filename (g_getenv ("FLUX_TEST_SRC"), "fuzz", folder, NULL);
  GDir *dir = g_dir_open (path, 0, NULL);
  const char *name;

  g_assert_nonnull (dir);
  while ((name = g_dir_read_name (dir)) != NULL) {
    gsize length;
    g_autofree char *bytes = read_data ("fuzz", folder, name, &length);

    use (bytes, length);
  }
  g_dir_close (dir);
}

static void
test_fuzz_seeds (void)
{
  use_folder ("seeds-safetensors", consume_safetensors);
  use_folder ("seeds-safetensors", consume_index);
  use_folder ("seeds-parquet", use_parquet);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/mutations/cut-parquet", test_cut_parquet);
  g_test_add_func ("/mutations/damaged-parquet", test_damaged_parquet);
  g_test_add_func ("/mutations/cut-safetensors", test_cut_safetensors);
  g_test_add_func ("/mutations/damaged-safetensors", test_damaged_safetensors);
  g_test_add_func ("/mutations/damaged-index", test_damaged_index);
  g_test_add_func ("/mutations/fuzz-seeds", test_fuzz_seeds);
  return g_test_run ();
}
