/* tests/flux/test-image-mutations.c: damaged pictures are refused or decoded, never
 * worse. The same damage every time. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/consume-image.h"

/* SplitMix64. */
static guint64
next_random (guint64 *state)
{
  guint64 z = *state += 0x9e3779b97f4a7c15u;

  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* One to four bytes changed, in turn by a bit, to anything, to an extreme. */
static void
damage (guint8 *copy, gsize size, guint turn, guint64 *state)
{
  static const guint8 extremes[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0xd9, 0xda, 0xc2};

  for (guint j = 0; j < 1 + turn % 4; j++) {
    guint64 r = next_random (state);
    guint8 *at = &copy[r % size];

    r >>= 40;
    if (turn % 3 == 0)
      *at ^= (guint8)(1u << r % 8);
    else if (turn % 3 == 1)
      *at = (guint8)r;
    else
      *at = extremes[r % G_N_ELEMENTS (extremes)];
  }
}

static void
test_mutations (gconstpointer path)
{
  guint64 state = g_str_hash (strrchr (path, '/'));
  guint taken = 0;
  gchar *data;
  gsize size;

  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  g_assert_true (consume_image ((guint8 *)data, size));
  for (guint turn = 0; turn < 250; turn++) {
    guint8 *copy = g_memdup2 (data, size);

    damage (copy, size, turn, &state);
    if (turn % 2 == 0 && g_str_has_suffix (path, ".png"))
      consume_fix_png (copy, size);
    taken += consume_image (copy, size);
    g_free (copy);
  }
  g_assert_cmpuint (taken, <, 250); /* at least the signature was hit */
  g_free (data);
}

int
main (int argc, char **argv)
{
  gchar *folder = g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "images", NULL);
  GDir *dir = g_dir_open (folder, 0, NULL);
  const gchar *name;
  int status;

  g_test_init (&argc, &argv, NULL);
  g_assert_nonnull (dir);
  while ((name = g_dir_read_name (dir)) != NULL)
    if (!g_str_has_suffix (name, ".json")) {
      gchar *path = g_strconcat ("/image-mutations/", name, NULL);

      g_test_add_data_func_full (
          path, g_build_filename (folder, name, NULL), test_mutations, g_free);
      g_free (path);
    }
  g_dir_close (dir);
  status = g_test_run ();
  g_free (folder);
  return status;
}
