/* tests/fuzz/fuzz-adapters.c: libFuzzer target of the adapter reader and, where it takes
 * the file, of the writers. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>

#include "flux/transformer/lora.h"
#include "tests/fuzz/consume.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* tests/data/transformer-small, with a guidance embedder. */
static const FluxConfig config = {.in_channels = 16,
    .out_channels = 16,
    .num_layers = 1,
    .num_single_layers = 2,
    .num_attention_heads = 2,
    .attention_head_dim = 32,
    .joint_attention_dim = 48,
    .pooled_projection_dim = 40,
    .guidance_embeds = TRUE,
    .axes_dims_rope = {8, 12, 12}};

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static fx_backend *backend;
  g_autofree char *path = NULL;
  int fd = consume_file (data, size, &path);

  if (backend == NULL)
    backend = fx_cpu_new (1);
  for (int strict = 0; strict < 2; strict++) {
    FluxLoraReport report = {0};
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxLora) lora =
        flux_lora_read (&config, backend, path, strict, FALSE, &report, &error);

    if (lora == NULL) {
      consume_error (error, path);
      continue;
    }
    g_assert_null (error);
    g_assert_cmpuint (report.n_layers, >, 0);
    g_assert_true (strict == 0 || report.n_left_out == 0);
    flux_lora_report_clear (&report);
    /* To nowhere: all that is computed is. */
    for (int format = 0; format < 3; format++)
      g_assert_false (flux_lora_write (lora, "/nowhere/a", (FluxLoraFormat)format, NULL));
  }
  close (fd);
  return 0;
}
