/* test-modelstream.c: weights from a folder to a folder, one tensor a buffer.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <signal.h>
#include <sys/resource.h>

#include "flux/files/stored.h"
#include "tests/elements/testweights.h"

static void
test_copies_a_model (void)
{
  gchar *model, *folder, *to, *from_part, *to_part, *message, *link;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  to = child (folder, "new/model/");
  g_assert_true (run_line (&message,
      "fluxmodelsrc location=%s ! queue ! fluxmodelsink location=%s "
      "parts=link",
      model, to));
  from_part = child (model, "transformer");
  to_part = child (to, "transformer");
  assert_same_tensors (from_part, to_part);
  link = child (to, "vae");
  g_assert_true (g_file_test (link, G_FILE_TEST_IS_DIR));
  assert_only (folder, "new");
  test_remove (folder);
  g_free (model);
  g_free (folder);
  g_free (to);
  g_free (from_part);
  g_free (to_part);
  g_free (link);
}

static void
test_shards_have_an_index (void)
{
  gchar *model, *folder, *to, *part, *index, *message;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  to = child (folder, "sharded");
  part = child (model, "transformer");
  index = child (to, "diffusion_pytorch_model.safetensors.index.json");
  g_assert_true (run_line (&message,
      "fluxmodelsrc location=%s ! fluxmodelsink location=%s max-shard-size=3000000", part,
      to));
  g_assert_true (g_file_test (index, G_FILE_TEST_EXISTS));
  assert_same_tensors (part, to);
  test_remove (folder);
  g_free (model);
  g_free (folder);
  g_free (to);
  g_free (part);
  g_free (index);
}

/* bitsandbytes' 4 bits become the floats that a trainer would calculate with. */
static void
test_expands_quantised_weights (void)
{
  static const gchar prefix[] = "transformer_blocks.0.attn.to_q";
  gchar *model, *folder, *to, *part, *message;
  FluxSafetensors *stored, *plain;
  const FluxTensor *t;
  FluxStored weight;
  GError *error = NULL;
  float *expected, *values;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  to = child (folder, "plain");
  part = child (model, "transformer");
  g_assert_true (run_line (&message,
      "fluxmodelsrc location=%s ! application/x-flux-weights,layout=plain ! "
      "fluxmodelsink location=%s",
      model, to));
  stored = flux_safetensors_open (part, NULL);
  plain = flux_safetensors_open (to, NULL);
  t = flux_safetensors_lookup (plain, "transformer_blocks.0.attn.to_q.weight");
  g_assert_nonnull (t);
  g_assert_cmpuint (t->n_dims, ==, 2);
  flux_stored_find (stored, prefix, t->dims[0], t->dims[1], &weight, &error);
  g_assert_no_error (error);
  expected = g_new (float, t->n_elements);
  values = g_new (float, t->n_elements);
  flux_stored_read (&weight, 0, (gint64)t->n_elements, expected);
  g_assert_true (flux_tensor_to_f32 (t, values, NULL));
  g_assert_cmpmem (expected, 4 * t->n_elements, values, 4 * t->n_elements);
  g_assert_null (
      flux_safetensors_lookup (plain, "transformer_blocks.0.attn.to_q.weight.absmax"));
  flux_safetensors_unref (stored);
  flux_safetensors_unref (plain);
  test_remove (folder);
  g_free (expected);
  g_free (values);
  g_free (model);
  g_free (folder);
  g_free (to);
  g_free (part);
}

static void
test_refuses_a_folder_that_is_there (void)
{
  gchar *model, *folder, *to, *message;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  to = child (folder, "precious.txt");
  g_assert_true (g_file_set_contents (to, "mine", -1, NULL));
  g_assert_false (run_line (
      &message, "fluxmodelsrc location=%s ! fluxmodelsink location=%s", model, folder));
  g_assert_nonnull (strstr (message, "is there already"));
  assert_only (folder, "precious.txt");
  test_remove (folder);
  g_free (message);
  g_free (model);
  g_free (folder);
  g_free (to);
}

/* Neither end takes hf://, and says what to do. */
static void
test_refuses_the_hub (void)
{
  gchar *model, *folder, *message;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  g_assert_false (run_line (&message,
      "fluxmodelsrc location=hf://user/name ! fluxmodelsink location=%s/new", folder));
  g_assert_nonnull (strstr (message, "run gst-flux pull hf://user/name"));
  g_free (message);
  g_assert_false (run_line (&message,
      "fluxmodelsrc location=%s ! fluxmodelsink location=hf://user/name", model));
  g_assert_nonnull (strstr (message, "not to 'hf://user/name'"));
  test_remove (folder);
  g_free (message);
  g_free (model);
  g_free (folder);
}

static void
test_an_early_end_leaves_nothing (void)
{
  gchar *model, *folder, *to, *message;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  to = child (folder, "half");
  g_assert_false (run_line (&message,
      "fluxmodelsrc location=%s num-buffers=5 ! fluxmodelsink location=%s", model, to));
  g_assert_nonnull (strstr (message, "tensors too early"));
  assert_only (folder, NULL);
  test_remove (folder);
  g_free (message);
  g_free (model);
  g_free (folder);
  g_free (to);
}

/* Also when nobody sends EOS. */
static void
test_stopping_leaves_nothing (void)
{
  gchar *model, *folder, *to;
  TestRun run;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  to = child (folder, "half");
  test_run_init (&run, "fluxmodelsrc location=%s ! fluxmodelsink location=%s", model, to);
  gst_element_set_state (run.pipeline, GST_STATE_PAUSED);
  g_assert_cmpint (gst_element_get_state (run.pipeline, NULL, NULL, TEST_TIMEOUT), ==,
      GST_STATE_CHANGE_SUCCESS);
  test_run_stop (&run);
  test_run_clear (&run);
  assert_only (folder, NULL);
  test_remove (folder);
  g_free (model);
  g_free (folder);
  g_free (to);
}

static void
test_a_truncated_file_is_an_error (void)
{
  gchar *model, *folder, *from, *config, *file, *to, *text, *message;
  gsize length;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  from = child (folder, "config.json");
  config = child (model, "transformer/config.json");
  g_assert_true (g_file_get_contents (config, &text, &length, NULL));
  g_assert_true (g_file_set_contents (from, text, (gssize)length, NULL));
  g_free (text);
  file = child (model, "transformer/diffusion_pytorch_model.safetensors");
  g_assert_true (g_file_get_contents (file, &text, &length, NULL));
  g_free (file);
  file = child (folder, "diffusion_pytorch_model.safetensors");
  g_assert_true (g_file_set_contents (file, text, (gssize)length / 2, NULL));
  g_free (text);
  to = child (folder, "to");
  g_assert_false (run_line (
      &message, "fluxmodelsrc location=%s ! fluxmodelsink location=%s", folder, to));
  g_assert_nonnull (strstr (message, file));
  g_assert_false (g_file_test (to, G_FILE_TEST_EXISTS));
  test_remove (folder);
  g_free (message);
  g_free (model);
  g_free (folder);
  g_free (from);
  g_free (config);
  g_free (file);
  g_free (to);
}

static void
test_a_full_disk_is_an_error (void)
{
  struct rlimit before, small = {.rlim_cur = 1 << 20};
  gchar *model, *folder, *to, *message;

  if (!test_need_model (&model))
    return;
  folder = test_folder ();
  to = child (folder, "to");
  /* Files end at 1 MiB: as near to a full disk as one gets without being root. */
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &before);
  small.rlim_max = before.rlim_max;
  setrlimit (RLIMIT_FSIZE, &small);
  g_assert_false (run_line (
      &message, "fluxmodelsrc location=%s ! fluxmodelsink location=%s", model, to));
  setrlimit (RLIMIT_FSIZE, &before);
  g_assert_nonnull (strstr (message, "Could not write"));
  assert_only (folder, NULL);
  test_remove (folder);
  g_free (message);
  g_free (model);
  g_free (folder);
  g_free (to);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/modelstream/copies-a-model", test_copies_a_model);
  g_test_add_func ("/modelstream/shards-have-an-index", test_shards_have_an_index);
  g_test_add_func (
      "/modelstream/expands-quantised-weights", test_expands_quantised_weights);
  g_test_add_func (
      "/modelstream/refuses-a-folder-that-is-there", test_refuses_a_folder_that_is_there);
  g_test_add_func (
      "/modelstream/an-early-end-leaves-nothing", test_an_early_end_leaves_nothing);
  g_test_add_func ("/modelstream/refuses-the-hub", test_refuses_the_hub);
  g_test_add_func ("/modelstream/stopping-leaves-nothing", test_stopping_leaves_nothing);
  g_test_add_func (
      "/modelstream/a-truncated-file-is-an-error", test_a_truncated_file_is_an_error);
  g_test_add_func ("/modelstream/a-full-disk-is-an-error", test_a_full_disk_is_an_error);
  return g_test_run ();
}
