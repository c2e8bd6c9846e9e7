/* tests/flux/test-tokenizer-mutations.c: damaged tokeniser files and text are refused or
 * read, never worse. The same damage every time.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * consume-tokenizers.h asserts that a failing call says why, and that what a successful
 * one returns makes sense. */
#include "tests/fuzz/consume-tokenizers.h"

static Consumer consumer;

static guint8 *
read_seed (const char *name, gsize *len)
{
  g_autofree char *path = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "fuzz", "seeds-tokenizers", name, NULL);
  char *data = NULL;

  g_assert_true (g_file_get_contents (path, &data, len, NULL));
  return (guint8 *)data;
}

static void
a_whole_seed_is_taken (gconstpointer name)
{
  gsize len;
  g_autofree guint8 *data = read_seed (name, &len);

  g_assert_true (consume_for_tokenizers (&consumer, data, len));
}

static void
truncation_is_survived (gconstpointer name)
{
  gsize len;
  g_autofree guint8 *data = read_seed (name, &len);
  guint refused = 0;

  for (gsize n = 1; n < len; n++) {
    g_autofree guint8 *part = g_memdup2 (data, n); /* so that valgrind sees its end */

    refused += !consume_for_tokenizers (&consumer, part, n);
  }
  g_assert_cmpuint (refused, >, 0);
}

static void
changed_bytes_are_survived (gconstpointer name)
{
  static const guint8 extremes[] = {0x00, 0x01, 0x7F, 0x80, 0xFF, '"', '{', '9'};
  gsize len;
  g_autofree guint8 *data = read_seed (name, &len);
  g_autofree guint8 *copy = g_malloc (len);
  g_autoptr (GRand) draw = g_rand_new_with_seed ((guint32)len);
  guint refused = 0;

  for (guint i = 0; i < 3000; i++) {
    memcpy (copy, data, len);
    for (guint j = 0; j <= i % 4; j++) {
      guint8 *byte = &copy[g_rand_int_range (draw, 1, (gint32)len)];

      if (i % 3 == 0)
        *byte ^= (guint8)(1u << g_rand_int_range (draw, 0, 8));
      else if (i % 3 == 1)
        *byte = (guint8)g_rand_int (draw);
      else
        *byte = extremes[g_rand_int_range (draw, 0, G_N_ELEMENTS (extremes))];
    }
    refused += !consume_for_tokenizers (&consumer, copy, len);
  }
  g_test_message ("%u of 3000 refused", refused);
  g_assert_true (refused > 0 && refused < 3000);
}

int
main (int argc, char **argv)
{
  static const char *const seeds[] = {
      "clip", "t5", "t5-bare", "text-0", "text-1", "text-2"};
  g_autofree char *model = g_build_filename (
      g_getenv ("FLUX_TEST_SRC"), "..", "examples", "models", "tiny-flux-emoji", NULL);
  int status;

  g_test_init (&argc, &argv, NULL);
  consumer_init (&consumer, model);
  for (guint i = 0; i < G_N_ELEMENTS (seeds); i++) {
    g_autofree char *whole = g_strdup_printf ("/tokenizer-mutations/whole/%s", seeds[i]);
    g_autofree char *cut =
        g_strdup_printf ("/tokenizer-mutations/truncated/%s", seeds[i]);
    g_autofree char *flip = g_strdup_printf ("/tokenizer-mutations/changed/%s", seeds[i]);

    g_test_add_data_func (whole, seeds[i], a_whole_seed_is_taken);
    g_test_add_data_func (cut, seeds[i], truncation_is_survived);
    g_test_add_data_func (flip, seeds[i], changed_bytes_are_survived);
  }
  status = g_test_run ();
  consumer_clear (&consumer);
  return status;
}
