//! Chunk sizes: who may have another one, and that bytes are found again with it.

mod common;

use common::*;

#[test]
fn the_chunk_size_of_an_empty_file_can_change() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        assert_eq!(dfs.layout(f).await.unwrap().chunk_bytes, 1 << 20);
        assert_eq!(errno(dfs.set_chunk(f, Some(5000)).await), libc::EINVAL);
        assert_eq!(errno(dfs.set_chunk(f, Some(0)).await), libc::EINVAL);
        dfs.set_chunk(f, Some(8192)).await.unwrap();
        assert_eq!(dfs.layout(f).await.unwrap().chunk_bytes, 8192);
        let bytes: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
        write(&dfs, f, 3, &bytes).await;
        assert_eq!(dfs.getattr(f).await.unwrap().size, 50_003);
        assert_eq!(errno(dfs.set_chunk(f, Some(4096)).await), libc::EPERM);
        let h = dfs.open(f, libc::O_RDONLY).await.unwrap().handle;
        assert_eq!(dfs.read(f, h, 3, 50_000).await.unwrap(), bytes);
        dfs.release(f, h).await.unwrap();
        let cut = dfs::SetAttr { size: Some(0), ..dfs::SetAttr::default() };
        dfs.setattr(f, cut).await.unwrap();
        dfs.set_chunk(f, None).await.unwrap();
        assert_eq!(dfs.layout(f).await.unwrap().chunk_bytes, 1 << 20);
        let sized = dfs::SetAttr { size: Some(1), ..dfs::SetAttr::default() };
        dfs.setattr(f, sized).await.unwrap();
        assert_eq!(errno(dfs.set_chunk(f, Some(4096)).await), libc::EPERM, "a hole is data too");
    });
}

#[test]
fn what_is_made_in_a_directory_gets_its_chunk_size() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let d = directory(&dfs, dfs.root(), "d").await;
        let before = file_with(&dfs, d, "before", b"x").await;
        dfs.set_chunk(d, Some(64 << 10)).await.unwrap();
        let after = file_with(&dfs, d, "after", b"x").await;
        let below = directory(&dfs, d, "below").await;
        dfs.set_chunk(d, None).await.unwrap();
        dfs.unmount().await.unwrap();
        let dfs = mount(&container).await;
        for (ino, chunk_bytes) in
            [(before, 1 << 20), (after, 64 << 10), (below, 64 << 10), (d, 1 << 20)]
        {
            assert_eq!(dfs.layout(ino).await.unwrap().chunk_bytes, chunk_bytes);
        }
        dfs.unmount().await.unwrap();
    });
}
